// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Products of small tiles in registers, and the packing that feeds them.
///
///     tile<12, 2, W>(k, a, a_row, 1, b, b_row, [&](auto row, auto pack, Pack<W> v) { ... });
///     transpose<W>(keys, stride, rows, columns, packed, packed_row);
#pragma once

#include "simd.hpp"

#include <utility>

namespace dsx::kernels::DSX_ISA {

template <size_t I>
struct Index {
  static constexpr size_t value = I;
};

/// sums[r][p] = the sum over k of a[r a_row + k a_k] times pack p of row k of b. Everything stays in registers.
template <size_t Rows, size_t Packs, class W>
DSX_INLINE void multiply(size_t k, const W* a, size_t a_row, size_t a_k, const W* b, size_t b_row, Pack<W> (&sums)[Rows][Packs]) {
  for (size_t i = 0; i < k; ++i, a += a_k, b += b_row) {
    Pack<W> right[Packs];
#pragma GCC unroll 8
    for (size_t p = 0; p < Packs; ++p) right[p] = load<W>(b + p * count_of<W>, Whole{});
#pragma GCC unroll 16
    for (size_t r = 0; r < Rows; ++r) {
      const Pack<W> left = spread(a[r * a_row]);
#pragma GCC unroll 8
      for (size_t p = 0; p < Packs; ++p) sums[r][p] += left * right[p];
    }
  }
}

template <size_t Rows, size_t Packs, class W>
DSX_INLINE void tile(size_t k, const W* a, size_t a_row, size_t a_k, const W* b, size_t b_row, W* c, size_t c_row, bool add) {
  Pack<W> sums[Rows][Packs]{};
  multiply<Rows, Packs, W>(k, a, a_row, a_k, b, b_row, sums);
#pragma GCC unroll 16
  for (size_t r = 0; r < Rows; ++r)
#pragma GCC unroll 8
    for (size_t p = 0; p < Packs; ++p) put(c + r * c_row + p * count_of<W>, sums[r][p], add, Whole{});
}

/// c (rows x packs) = or += a (rows x k) b (k x packs); rows of b and c are whole packs. For products of some dozens of rows.
template <class W>
void small_product(size_t rows, size_t packs, size_t k, const W* a, size_t a_row, size_t a_k, const W* b, size_t b_row, W* c, size_t c_row,
                   bool add) {
  constexpr size_t wide = registers == 32 ? 4 : 2, lane_count = count_of<W>;
  const auto band = [&]<size_t Rows>(Index<Rows>) {
    size_t p = 0;
    for (; p + wide <= packs; p += wide) tile<Rows, wide>(k, a, a_row, a_k, b + p * lane_count, b_row, c + p * lane_count, c_row, add);
    for (; p < packs; ++p) tile<Rows, 1>(k, a, a_row, a_k, b + p * lane_count, b_row, c + p * lane_count, c_row, add);
  };
  size_t r = 0;
  for (; r + 4 <= rows; r += 4, a += 4 * a_row, c += 4 * c_row) band(Index<4>{});
  for (; r < rows; ++r, a += a_row, c += c_row) band(Index<1>{});
}

template <size_t... I, class V>
DSX_INLINE V interleave(V a, V b, std::index_sequence<I...>, bool high) {
  constexpr int n = sizeof...(I);
  return high ? __builtin_shufflevector(a, b, (int(I) / 2 + n / 2 + (I % 2 ? n : 0))...)
              : __builtin_shufflevector(a, b, (int(I) / 2 + (I % 2 ? n : 0))...);
}

/// Transposes as many packs as a pack has lanes: each of log2(lanes) rounds interleaves the first half of the packs with the second.
template <class W>
DSX_INLINE void transpose_square(Pack<W> (&v)[count_of<W>]) {
  constexpr size_t n = count_of<W>;
#pragma GCC unroll 4
  for (size_t round = 1; round < n; round *= 2) {
    Pack<W> next[n];
#pragma GCC unroll 16
    for (size_t i = 0; i < n / 2; ++i) {
      next[2 * i] = interleave(v[i], v[i + n / 2], std::make_index_sequence<n>{}, false);
      next[2 * i + 1] = interleave(v[i], v[i + n / 2], std::make_index_sequence<n>{}, true);
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < n; ++i) v[i] = next[i];
  }
}

/// to (columns x rows, its rows to_row apart) = the transpose of from (rows x columns), times factor. Rows of `to` are filled with zeros up
/// to a whole pack.
template <class W, class T>
void transpose(const T* from, size_t from_row, size_t rows, size_t columns, W* to, size_t to_row, W factor = 1) {
  constexpr size_t n = count_of<W>;
  for (size_t r = 0; r < rows; r += n)
    for (size_t c = 0; c < columns; c += n) {
      const size_t down = rows - r < n ? rows - r : n, across = columns - c < n ? columns - c : n;
      Pack<W> v[n];
      if (down == n && across == n) {
#pragma GCC unroll 16
        for (size_t i = 0; i < n; ++i) v[i] = load<W>(from + (r + i) * from_row + c, Whole{}) * factor;
      } else {
        for (size_t i = 0; i < n; ++i) v[i] = i < down ? load<W>(from + (r + i) * from_row + c, Part{across}) * factor : Pack<W>{};
      }
      transpose_square<W>(v);
      if (across == n) {
#pragma GCC unroll 16
        for (size_t i = 0; i < n; ++i) store(to + (c + i) * to_row + r, v[i], Whole{});
      } else {
        for (size_t i = 0; i < across; ++i) store(to + (c + i) * to_row + r, v[i], Whole{});
      }
    }
}

/// to = from times factor, row by row, each row filled with zeros up to `padded` columns (whole packs).
template <class W, class T>
void copy_rows(const T* from, size_t from_row, size_t rows, size_t columns, W* to, size_t to_row, size_t padded, W factor = 1) {
  for (size_t r = 0; r < rows; ++r, from += from_row, to += to_row) {
    lanes<W>(columns, [&](size_t i, auto some) { store(to + i, load<W>(from + i, some) * factor, Whole{}); });
    for (size_t i = (columns + count_of<W> - 1) / count_of<W> * count_of<W>; i < padded; i += count_of<W>) store(to + i, Pack<W>{}, Whole{});
  }
}

}  // namespace dsx::kernels::DSX_ISA
