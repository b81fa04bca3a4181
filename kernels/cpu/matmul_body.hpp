// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A matrix product on one thread, by Eigen's packing and its kernel (Goto & van de Geijn 2008). Compiled once for each instruction set.
///
///     pick<MatmulBody<T, U>>().product(task);
///
/// Eigen's own loop around them would take packing space from the heap, pack bf16 after it was widened elsewhere and be done with all of C
/// before a bias is added. This one packs into the task's space, widens while packing, and finishes a block of C while it is warm.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// What g++ 12 says of its own AVX-512 intrinsics where Eigen uses them.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "elementwise_tables.hpp"
#include "simd.hpp"

// Eigen's functions are compiled for this instruction set alone: under its usual name they would be one with those that a program
// which uses Eigen itself, or the other instruction set, was compiled with.
#define DSX_JOINED(a, b) a##b
#define DSX_EIGEN_OF(isa) DSX_JOINED(Eigen_, isa)
#define Eigen DSX_EIGEN_OF(DSX_ISA)
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Core>

namespace dsx::kernels {

/// C (m x n) = or += A B, then bias and GELU. Steps: elements from one row (or column) to the next, so transposed operands need no copy.
template <class T, class U>
struct MatmulTask {
  const T* a;
  std::size_t a_row, a_column;
  const T* b;
  std::size_t b_row, b_column;
  U* c;
  std::size_t c_row;
  std::size_t m, n, k;
  bool accumulate;
  bool single;       // the whole product (of which this may be a part) has one row
  const void* bias;  // null, or n elements, of type U if `wide_bias`, else T
  bool wide_bias;
  U* activated;  // null, or as c
  Gelu form;
  std::byte* space;  // as much as `space` below says, aligned to 64
};

template <class T, class U>
struct MatmulBody {
  void (*product)(const MatmulTask<T, U>& task);
  /// Bytes for a task of at most this size.
  std::size_t (*space)(std::size_t m, std::size_t n, std::size_t k);
  /// Rows and columns of a tile: tasks are best cut at its multiples.
  std::size_t tile_rows, tile_columns;
  static const MatmulBody v3, v4;
};

namespace DSX_ISA {

/// Columns of C whose wide sums a task keeps while C itself is narrow.
inline constexpr size_t narrow_columns = 1024;
/// Of a bf16 matrix that meets a single row so much is widened at once.
inline constexpr size_t widened_lines = 16, widened_length = 1024;

// Eigen's kernel wants columns of the result contiguous: it is given the transpose, C' = B' A'.
template <class W>
using Kernel = Eigen::internal::gebp_traits<W, W>;
template <class W>
inline constexpr size_t tile_rows = Kernel<W>::nr;
template <class W>
inline constexpr size_t tile_columns = Kernel<W>::mr;
/// What is packed at once: A's block rests in the second cache while blocks of B, a few tiles wide, pass by. Constants, and not what Eigen
/// computes from the processor's caches: a plan and the bits of a product are the same on all processors of an instruction set.
template <class W>
inline constexpr size_t most_columns = 3 * tile_columns<W>;
template <class W>
inline constexpr size_t deepest = 3072 / sizeof(W);
inline constexpr size_t most_rows = 256;

DSX_INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }
DSX_INLINE size_t up_to(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }
/// The size of the parts if n is cut into as few as possible of at most `most`, about equally.
DSX_INLINE size_t even_part(size_t n, size_t most, size_t multiple) {
  const size_t parts = n ? (n + most - 1) / most : 1;
  return up_to((n + parts - 1) / parts, multiple);
}

/// An operand as Eigen's packing reads it: element (i, j) of a matrix whose rows (RowMajor) or columns are contiguous, widened to W.
template <class W, class T, int Order>
struct Operand {
  const T* data;
  size_t step;
  const T* at(Eigen::Index i, Eigen::Index j) const {
    return data + (Order == Eigen::RowMajor ? size_t(i) * step + size_t(j) : size_t(j) * step + size_t(i));
  }
  W operator()(Eigen::Index i, Eigen::Index j) const { return get(at(i, j)); }
  template <class Packet>
  Packet loadPacket(Eigen::Index i, Eigen::Index j) const {
    return packet<Packet>(at(i, j));
  }
  template <class Packet>
  static Packet packet(const T* from) {
    if constexpr (__is_same(T, W)) {
      return Eigen::internal::ploadu<Packet>(from);
    } else if constexpr (sizeof(Packet) == register_bytes) {
      return Packet(load<W>(from, Whole{}));
    } else {
      W wide[sizeof(Packet) / sizeof(W)];
      for (size_t i = 0; i < sizeof(Packet) / sizeof(W); ++i) wide[i] = get(from + i);
      return Eigen::internal::ploadu<Packet>(wide);
    }
  }
  struct LinearMapper {
    const T* from;
    W operator()(Eigen::Index i) const { return get(from + i); }
    template <class Packet>
    Packet loadPacket(Eigen::Index i) const {
      return packet<Packet>(from + i);
    }
  };
  LinearMapper getLinearMapper(Eigen::Index i, Eigen::Index j) const { return {at(i, j)}; }
};

/// Sums as Eigen's kernel updates them, column by column of C'. Where Add is false what it reads is 0, so that C needn't be cleared before.
template <class W, bool Add>
struct Sums {
  W* data;
  size_t step;
  struct Scalar {
    W* to;
    void operator+=(W x) const { *to = Add ? *to + x : x; }
  };
  struct LinearMapper {
    W* to;
    // A column of a tile spans three packs; all arrive while its sums are made.
    void prefetch(Eigen::Index i) const {
      for (size_t line = 0; line < 3 * register_bytes; line += 64) __builtin_prefetch(reinterpret_cast<const char*>(to + i) + line, 1);
    }
    template <class Packet>
    Packet loadPacket(Eigen::Index i) const {
      if constexpr (Add) return Eigen::internal::ploadu<Packet>(to + i);
      return Eigen::internal::pset1<Packet>(W(0));
    }
    template <class Packet>
    void storePacket(Eigen::Index i, const Packet& x) const {
      Eigen::internal::pstoreu(to + i, x);
    }
  };
  Scalar operator()(Eigen::Index i, Eigen::Index j) const { return {data + size_t(j) * step + size_t(i)}; }
  LinearMapper getLinearMapper(Eigen::Index i, Eigen::Index j) const { return {(*this)(i, j).to}; }
  template <class Packet>
  Packet gatherPacket(Eigen::Index i, Eigen::Index j) const {
    if constexpr (Add) return Eigen::internal::pgather<W, Packet>((*this)(i, j).to, Eigen::Index(step));
    return Eigen::internal::pset1<Packet>(W(0));
  }
  template <class Packet>
  void scatterPacket(Eigen::Index i, Eigen::Index j, const Packet& x) const {
    Eigen::internal::pscatter<W, Packet>((*this)(i, j).to, x, Eigen::Index(step));
  }
};

template <class W, bool Add>
void multiply(const W* b, const W* a, W* sums, size_t sums_row, size_t m, size_t n, size_t k) {
  Eigen::internal::gebp_kernel<W, W, Eigen::Index, Sums<W, Add>, Kernel<W>::mr, Kernel<W>::nr, false, false>{}(
      {sums, sums_row}, b, a, Eigen::Index(n), Eigen::Index(k), Eigen::Index(m), W(1));
}

/// The left and the right operand of the transposed product, packed.
template <int Order, class W, class T>
void pack_left(const T* b, size_t step, size_t n, size_t k, W* packed) {
  Eigen::internal::gemm_pack_lhs<W, Eigen::Index, Operand<W, T, Order>, Kernel<W>::mr, Kernel<W>::LhsProgress, typename Kernel<W>::LhsPacket4Packing,
                                 Order>{}(packed, {b, step}, Eigen::Index(k), Eigen::Index(n));
}
template <int Order, class W, class T>
void pack_right(const T* a, size_t step, size_t m, size_t k, W* packed) {
  Eigen::internal::gemm_pack_rhs<W, Eigen::Index, Operand<W, T, Order>, Kernel<W>::nr, Order>{}(packed, {a, step}, Eigen::Index(k), Eigen::Index(m));
}

/// What a task of so many rows, columns and sums takes of its space, in elements; never less than a smaller one.
template <class T, class U>
struct Parts {
  using W = Wide<T>;
  static constexpr bool narrow = !__is_same(U, W);
  size_t a, b, sums_row, sums;  // packed; where C is narrow, wide sums, whose rows would fall on each other in a cache if a power of two apart
  size_t row, widened;          // of a task of one row: a copy of it, and what is widened of B
  Parts(size_t m, size_t n, size_t k) {
    const size_t rows = least(up_to(m, tile_rows<W>), most_rows), depth = least(up_to(k, 16), deepest<W>);
    a = up_to(rows * depth, 16), b = least(up_to(n, tile_columns<W>), most_columns<W>) * depth;
    sums_row = up_to(least(n, narrow_columns), 16) + 16, sums = narrow ? rows * sums_row : 0;
    row = up_to(k, 16), widened = __is_same(T, W) ? 0 : widened_lines * widened_length;
  }
  static size_t bytes(size_t m, size_t n, size_t k) {
    const Parts all{m, n, k};
    const size_t blocked = all.a + all.b + all.sums, one = all.row + all.widened + (narrow ? n : 0);
    return (one > blocked ? one : blocked) * sizeof(W) + 64;
  }
};

/// What follows the sums of some columns while they are in the cache: for a narrow C the rounding, then bias and GELU.
template <class T, class U>
void finish(const MatmulTask<T, U>& task, const Wide<T>* sums, size_t sums_row, size_t row, size_t rows, size_t column, size_t columns) {
  using W = Wide<T>;
  for (size_t r = 0; r < rows; ++r, sums += sums_row) {
    const size_t at = (row + r) * task.c_row + column;
    lanes<W>(columns, [&](size_t i, auto some) {
      Pack<W> v = load<W>(sums + i, some);
      if (task.bias && task.wide_bias)
        v += load<W>(static_cast<const U*>(task.bias) + column + i, some);
      else if (task.bias)
        v += load<W>(static_cast<const T*>(task.bias) + column + i, some);
      if (!__is_same(U, W) && task.accumulate) v += load<W>(task.c + at + i, some);
      store(task.c + at + i, v, some);
    });
  }
  if (task.activated)
    for (size_t r = 0; r < rows; ++r) {
      const size_t at = (row + r) * task.c_row + column;
      ElementwiseBody<U>::DSX_ISA.gelu(task.c + at, task.activated + at, columns, task.form);
    }
}

/// y (n) += B' x, where the columns of B' (ColMajor) or its rows are contiguous.
template <int Order, class W>
void add_row(const W* b, size_t step, const W* x, W* y, size_t n, size_t k) {
  using Matrix = Eigen::Matrix<W, Eigen::Dynamic, Eigen::Dynamic, Order>;
  using Vector = Eigen::Matrix<W, Eigen::Dynamic, 1>;
  Eigen::Map<Vector>(y, Eigen::Index(n)).noalias() +=
      Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>(b, Eigen::Index(n), Eigen::Index(k), Eigen::OuterStride<>(Eigen::Index(step))) *
      Eigen::Map<const Vector>(x, Eigen::Index(k));
}

/// A product of one row, as when a token is decoded, reads B once as it lies: packing would cost more than the sums.
template <class T, class U>
void product_of_row(const MatmulTask<T, U>& task) {
  using W = Wide<T>;
  W* const x = reinterpret_cast<W*>(task.space);
  const Parts<T, U> parts{1, task.n, task.k};
  W* const widened = x + parts.row;
  W* sums = widened + parts.widened;
  if constexpr (__is_same(U, W)) sums = task.c;
  for (size_t i = 0; i < task.k; ++i) x[i] = get(task.a + i * task.a_column);
  if (!__is_same(U, W) || !task.accumulate) memset(sums, 0, task.n * sizeof(W));
  const bool by_rows = task.b_column == 1;
  const size_t step = by_rows ? task.b_row : task.b_column;
  const auto add = by_rows ? add_row<Eigen::ColMajor, W> : add_row<Eigen::RowMajor, W>;
  if constexpr (__is_same(T, W)) {
    add(task.b, step, x, sums, task.n, task.k);
  } else {
    const size_t lines = by_rows ? task.k : task.n, length = by_rows ? task.n : task.k;
    for (size_t line = 0; line < lines; line += widened_lines)
      for (size_t first = 0; first < length; first += widened_length) {
        const size_t some = least(widened_lines, lines - line), width = least(widened_length, length - first);
        for (size_t i = 0; i < some; ++i) {
          const T* const from = task.b + (line + i) * step + first;
          lanes<W>(width, [&](size_t j, auto part) { store(widened + i * widened_length + j, load<W>(from + j, part), part); });
        }
        if (by_rows)
          add(widened, widened_length, x + line, sums + first, width, some);
        else
          add(widened, widened_length, x + first, sums + line, some, width);
      }
  }
  if (!__is_same(U, W) || task.bias || task.activated) finish(task, sums, task.n, 0, 1, 0, task.n);
}

template <class T, class U>
void product(const MatmulTask<T, U>& task) {
  using W = Wide<T>;
  constexpr bool narrow = !__is_same(U, W);
  if (task.single) return product_of_row(task);
  const Parts<T, U> parts{task.m, task.n, task.k};
  W* const a = reinterpret_cast<W*>(task.space);
  W* const b = a + parts.a;
  W* const wide_sums = b + parts.b;
  const auto pack_a = task.a_column == 1 ? pack_right<Eigen::ColMajor, W, T> : pack_right<Eigen::RowMajor, W, T>;
  const auto pack_b = task.b_column == 1 ? pack_left<Eigen::ColMajor, W, T> : pack_left<Eigen::RowMajor, W, T>;
  const size_t a_step = task.a_column == 1 ? task.a_row : task.a_column, b_step = task.b_column == 1 ? task.b_row : task.b_column;
  const size_t rows_at_once = even_part(task.m, most_rows, tile_rows<W>), depth = even_part(task.k, deepest<W>, 8);
  const size_t kept = narrow ? least(task.n, narrow_columns) : task.n, columns_at_once = even_part(kept, most_columns<W>, tile_columns<W>);
  for (size_t left = 0; left < task.n; left += kept) {
    const size_t right = least(task.n, left + kept);
    for (size_t top = 0; top < task.m; top += rows_at_once) {
      const size_t m = least(rows_at_once, task.m - top);
      for (size_t begin = 0; begin == 0 || begin < task.k; begin += depth ? depth : 1) {
        const size_t k = least(depth, task.k - begin);
        const bool last = begin + k == task.k;
        pack_a(task.a + top * task.a_row + begin * task.a_column, a_step, m, k, a);
        for (size_t column = left; column < right; column += columns_at_once) {
          const size_t n = least(columns_at_once, right - column);
          pack_b(task.b + begin * task.b_row + column * task.b_column, b_step, n, k, b);
          W* sums;
          size_t sums_row;
          if constexpr (narrow)
            sums = wide_sums + (column - left), sums_row = parts.sums_row;
          else
            sums = task.c + top * task.c_row + column, sums_row = task.c_row;
          const bool add = begin > 0 || (!narrow && task.accumulate);
          // A sum of nothing, as an empty group's: Eigen's kernel divides by k.
          if (k == 0)
            for (size_t r = 0; r < m && !add; ++r) memset(sums + r * sums_row, 0, n * sizeof(W));
          else
            (add ? multiply<W, true> : multiply<W, false>)(b, a, sums, sums_row, m, n, k);
          if (last && (narrow || task.bias || task.activated)) finish(task, sums, sums_row, top, m, column, n);
        }
      }
    }
  }
}

}  // namespace DSX_ISA

#define DSX_BODY(T, U)                                                                                                               \
  template <>                                                                                                                        \
  const MatmulBody<T, U> MatmulBody<T, U>::v3;                                                                                       \
  template <>                                                                                                                        \
  const MatmulBody<T, U> MatmulBody<T, U>::v4;                                                                                       \
  template <>                                                                                                                        \
  const MatmulBody<T, U> MatmulBody<T, U>::DSX_ISA{DSX_ISA::product<T, U>, DSX_ISA::Parts<T, U>::bytes, DSX_ISA::tile_rows<Wide<T>>, \
                                                   DSX_ISA::tile_columns<Wide<T>>};
DSX_BODY(float, float)
DSX_BODY(double, double)
DSX_BODY(bf16, bf16)
DSX_BODY(bf16, float)
#undef DSX_BODY

}  // namespace dsx::kernels
