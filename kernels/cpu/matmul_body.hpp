// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A matrix product on one thread, after Goto & van de Geijn 2008: blocks of A and B are packed (and widened) so that a tile of C stays
/// in registers while its operands come from the nearest caches. Compiled once for each instruction set.
///
///     pick<MatmulBody<T, U>>().product(task);
///
/// A's block (some hundred rows, up to 384 deep) rests in the second cache; B is packed eight panels at a time, each as wide as a tile.
/// An element of C is the same sum in the same order wherever its tile lies, so bits don't depend on how C was cut into tasks.
#pragma once

#include "elementwise_tables.hpp"
#include "tile.hpp"

namespace dsx::kernels {

/// A product of so few rows, as when one token a sequence is decoded, reads B once as it lies: packing would cost more than the sums.
inline constexpr std::size_t few_rows = 4;

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
  bool few;          // the whole product (of which this may be a part) has at most few_rows rows
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

inline constexpr size_t tile_rows = registers == 32 ? 12 : 6, tile_packs = 2, group_panels = 8, deepest = 384;
inline constexpr size_t block_rows = registers == 32 ? 480 : 192;
/// Columns of C whose wide sums a task keeps while C itself is narrow.
inline constexpr size_t narrow_columns = 1024;

template <class W>
inline constexpr size_t panel_columns = tile_packs * count_of<W>;

DSX_INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }
DSX_INLINE size_t up_to(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }
/// The size of the parts if n is cut into as few as possible of at most `most`, about equally.
DSX_INLINE size_t even_part(size_t n, size_t most, size_t multiple) {
  const size_t parts = n ? (n + most - 1) / most : 1;
  return up_to((n + parts - 1) / parts, multiple);
}

template <class T, class U>
size_t product_space(size_t m, size_t n, size_t k) {
  using W = Wide<T>;
  const size_t rows = up_to(least(m, block_rows), tile_rows);
  size_t elements = rows * deepest + group_panels * panel_columns<W> * least(k, deepest);
  if (!__is_same(U, W)) elements += rows * up_to(least(n, narrow_columns), panel_columns<W>);
  const size_t few = least(m, few_rows) * (up_to(k, count_of<W>) + narrow_columns);  // at any m, for a group's rows may be few
  if (few > elements) elements = few;
  return elements * sizeof(W) + 64;
}

/// Rows of A (m x k) into panels of tile_rows. Where A's rows are contiguous they are copied, `deepest` apart, else k by k. Missing rows are 0.
template <class W, class T>
void pack_rows(const T* a, size_t a_row, size_t a_column, size_t m, size_t k, W* packed) {
  for (size_t first = 0; first < m; first += tile_rows, packed += tile_rows * deepest) {
    const size_t rows = least(tile_rows, m - first);
    const T* const from = a + first * a_row;
    if (a_column == 1) {
      for (size_t r = 0; r < rows; ++r)
        lanes<W>(k, [&](size_t i, auto some) { store(packed + r * deepest + i, load<W>(from + r * a_row + i, some), Whole{}); });
      for (size_t r = rows; r < tile_rows; ++r) memset(packed + r * deepest, 0, k * sizeof(W));
    } else {
      for (size_t i = 0; i < k; ++i) {
        W* const to = packed + i * tile_rows;
        if (rows == tile_rows && a_row == 1) {
#pragma GCC unroll 16
          for (size_t r = 0; r < tile_rows; ++r) to[r] = get(from + r + i * a_column);
        } else {
          for (size_t r = 0; r < tile_rows; ++r) to[r] = r < rows ? get(from + r * a_row + i * a_column) : W(0);
        }
      }
    }
  }
}

/// Columns of B (k x n) into panels as wide as a tile, one row of a panel after the other. Missing columns are 0.
template <class W, class T>
void pack_columns(const T* b, size_t b_row, size_t b_column, size_t k, size_t n, W* packed) {
  constexpr size_t width = panel_columns<W>;
  for (size_t first = 0; first < n; first += width, packed += width * k) {
    const size_t columns = least(width, n - first);
    const T* const from = b + first * b_column;
    if (b_column == 1 && columns == width) {
      for (size_t i = 0; i < k; ++i)
        for (size_t p = 0; p < tile_packs; ++p)
          store(packed + i * width + p * count_of<W>, load<W>(from + i * b_row + p * count_of<W>, Whole{}), Whole{});
    } else if (b_column == 1) {
      copy_rows<W>(from, b_row, k, columns, packed, width, width);
    } else if (b_row == 1) {
      transpose<W>(from, b_column, columns, k, packed, width);
      if (columns <= width - count_of<W>)
        for (size_t i = 0; i < k; ++i) memset(packed + i * width + up_to(columns, count_of<W>), 0, (width - up_to(columns, count_of<W>)) * sizeof(W));
    } else {
      for (size_t i = 0; i < k; ++i)
        for (size_t j = 0; j < width; ++j) packed[i * width + j] = j < columns ? get(from + i * b_row + j * b_column) : W(0);
    }
  }
}

/// One tile of C, of which `rows` x `columns` exist.
template <bool Copied, class W>
__attribute__((noinline)) void product_tile(size_t k, const W* a, const W* b, W* c, size_t c_row, size_t rows, size_t columns, bool add) {
  constexpr size_t a_row = Copied ? deepest : 1, a_k = Copied ? 1 : tile_rows, width = panel_columns<W>;
  Pack<W> sums[tile_rows][tile_packs]{};
  for (size_t r = 0; r < rows; ++r)
    for (size_t i = 0; i < columns; i += 64 / sizeof(W)) __builtin_prefetch(c + r * c_row + i, 1);  // C arrives while the sums are made
  multiply<tile_rows, tile_packs, W>(k, a, a_row, a_k, b, width, sums);
  if (rows == tile_rows && columns == width) {
#pragma GCC unroll 16
    for (size_t r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
      for (size_t p = 0; p < tile_packs; ++p) put(c + r * c_row + p * count_of<W>, sums[r][p], add, Whole{});
    return;
  }
  W whole[tile_rows * width];
#pragma GCC unroll 16
  for (size_t r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
    for (size_t p = 0; p < tile_packs; ++p) store(whole + r * width + p * count_of<W>, sums[r][p], Whole{});
  for (size_t r = 0; r < rows; ++r)
    lanes<W>(columns, [&](size_t i, auto some) { put(c + r * c_row + i, load<W>(whole + r * width + i, some), add, some); });
}

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

/// A dot product of k elements, a multiple of whole packs of `a` being readable.
template <class W, class T>
DSX_INLINE W dot(const W* a, const T* b, size_t k) {
  Pack<W> sums[4]{};
  size_t i = 0;
  for (; i + 4 * count_of<W> <= k; i += 4 * count_of<W>)
#pragma GCC unroll 4
    for (size_t p = 0; p < 4; ++p) sums[p] += load<W>(a + i + p * count_of<W>, Whole{}) * load<W>(b + i + p * count_of<W>, Whole{});
  lanes<W>(k - i, [&](size_t j, auto some) { sums[0] += load<W>(a + i + j, some) * load<W>(b + i + j, some); });
  return sum<W>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class T, class U>
void product_of_few(const MatmulTask<T, U>& task) {
  using W = Wide<T>;
  constexpr bool narrow = !__is_same(U, W);
  const size_t a_row = up_to(task.k, count_of<W>);
  W* const a = reinterpret_cast<W*>(task.space);
  W* const wide_sums = a + task.m * a_row;
  for (size_t r = 0; r < task.m; ++r)
    for (size_t i = 0; i < task.k; ++i) a[r * a_row + i] = get(task.a + r * task.a_row + i * task.a_column);
  for (size_t left = 0; left < task.n; left += narrow_columns) {
    const size_t n = least(narrow_columns, task.n - left);
    W* sums;
    size_t sums_row;
    if constexpr (narrow)
      sums = wide_sums, sums_row = narrow_columns;
    else
      sums = task.c + left, sums_row = task.c_row;
    const bool add = !narrow && task.accumulate;
    if (task.b_column == 1) {
      for (size_t r = 0; r < task.m && !add; ++r) memset(sums + r * sums_row, 0, n * sizeof(W));
      const T* b = task.b + left;
      size_t i = 0;
      for (; i + 4 <= task.k; i += 4, b += 4 * task.b_row)
        for (size_t r = 0; r < task.m; ++r) {
          const W* const factors = a + r * a_row + i;
          lanes<W>(n, [&](size_t j, auto some) {
            Pack<W> v = load<W>(sums + r * sums_row + j, some);
#pragma GCC unroll 4
            for (size_t p = 0; p < 4; ++p) v += factors[p] * load<W>(b + p * task.b_row + j, some);
            store(sums + r * sums_row + j, v, some);
          });
        }
      for (; i < task.k; ++i, b += task.b_row)
        for (size_t r = 0; r < task.m; ++r) {
          const W factor = a[r * a_row + i];
          lanes<W>(n, [&](size_t j, auto some) { put(sums + r * sums_row + j, factor * load<W>(b + j, some), true, some); });
        }
    } else {
      for (size_t j = 0; j < n; ++j)
        for (size_t r = 0; r < task.m; ++r) {
          const W value = dot(a + r * a_row, task.b + (left + j) * task.b_column, task.k);
          W& c = sums[r * sums_row + j];
          c = add ? c + value : value;
        }
    }
    if (narrow || task.bias || task.activated) finish(task, sums, sums_row, 0, task.m, left, n);
  }
}

template <class T, class U>
void product(const MatmulTask<T, U>& task) {
  using W = Wide<T>;
  constexpr bool narrow = !__is_same(U, W);
  if (task.few && (task.b_column == 1 || task.b_row == 1)) return product_of_few(task);
  constexpr size_t group = group_panels * panel_columns<W>;
  const size_t rows_at_once = even_part(task.m, block_rows, tile_rows), depth = even_part(task.k, deepest, 1);
  const size_t columns_at_once = narrow ? least(task.n, narrow_columns) : task.n;
  const bool copied = task.a_column == 1;
  W* const a = reinterpret_cast<W*>(task.space);
  W* const b = a + up_to(least(task.m, block_rows), tile_rows) * deepest;
  W* const wide_sums = b + group * least(task.k, deepest);
  for (size_t left = 0; left < task.n; left += columns_at_once) {
    const size_t right = least(task.n, left + columns_at_once);
    for (size_t top = 0; top < task.m; top += rows_at_once) {
      const size_t m = least(rows_at_once, task.m - top);
      for (size_t begin = 0; begin == 0 || begin < task.k; begin += depth ? depth : 1) {
        const size_t k = least(depth, task.k - begin);
        const bool last = begin + k == task.k;
        pack_rows(task.a + top * task.a_row + begin * task.a_column, task.a_row, task.a_column, m, k, a);
        for (size_t column = left; column < right; column += group) {
          const size_t n = least(group, right - column);
          pack_columns(task.b + begin * task.b_row + column * task.b_column, task.b_row, task.b_column, k, n, b);
          W* sums;
          size_t sums_row;
          if constexpr (narrow)
            sums = wide_sums + (column - left), sums_row = up_to(columns_at_once, panel_columns<W>);
          else
            sums = task.c + top * task.c_row + column, sums_row = task.c_row;
          const bool add = begin > 0 || (!narrow && task.accumulate);
          for (size_t r = 0; r < m; r += tile_rows)
            for (size_t j = 0; j < n; j += panel_columns<W>) {
              const auto run = copied ? product_tile<true, W> : product_tile<false, W>;
              run(k, a + r * deepest, b + j * k, sums + r * sums_row + j, sums_row, least(tile_rows, m - r), least(panel_columns<W>, n - j), add);
            }
          if (last && (narrow || task.bias || task.activated)) finish(task, sums, sums_row, top, m, column, n);
        }
      }
    }
  }
}

}  // namespace DSX_ISA

#define DSX_BODY(T, U)                                                                                                       \
  template <>                                                                                                                \
  const MatmulBody<T, U> MatmulBody<T, U>::v3;                                                                               \
  template <>                                                                                                                \
  const MatmulBody<T, U> MatmulBody<T, U>::v4;                                                                               \
  template <>                                                                                                                \
  const MatmulBody<T, U> MatmulBody<T, U>::DSX_ISA{DSX_ISA::product<T, U>, DSX_ISA::product_space<T, U>, DSX_ISA::tile_rows, \
                                                   DSX_ISA::panel_columns<Wide<T>>};
DSX_BODY(float, float)
DSX_BODY(double, double)
DSX_BODY(bf16, bf16)
DSX_BODY(bf16, float)
#undef DSX_BODY

}  // namespace dsx::kernels
