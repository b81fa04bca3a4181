// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Loops of permute and combine over one token's rows, compiled once for each instruction set.
///
///     pick<PermuteBody<T>>().sum(rows, weights, count, columns, y, accumulate);   // y = sum of weight x row; without weights of rows
///     dot = pick<PermuteBody<T>>().pull(dy, row, weight, columns, drow, accumulate);
#pragma once

#include "simd.hpp"

namespace dsx::kernels {

template <class T>
struct PermuteBody {
  void (*sum)(const T* const* rows, const Wide<T>* weights, std::size_t count, std::size_t n, T* y, bool accumulate);
  /// drow = or += weight dy; gives the product of row and dy.
  Wide<T> (*pull)(const T* dy, const T* row, Wide<T> weight, std::size_t n, T* drow, bool accumulate);
  static const PermuteBody v3, v4;
};
struct CopyBody {
  /// `past_cache`: to memory directly, for rows that are read again when the cache has long forgotten them: no line is fetched to be
  /// overwritten. A thread that copied so must call done() before another reads.
  void (*copy)(const std::byte* from, std::byte* to, std::size_t bytes, bool past_cache);
  void (*done)();
  static const CopyBody v3, v4;
};

namespace DSX_ISA {

inline void copy_bytes(const std::byte* from, std::byte* to, size_t bytes, bool past_cache) {
#if defined(__AVX__)
  if (past_cache && reinterpret_cast<std::uintptr_t>(to) % register_bytes == 0) {
    for (; bytes >= register_bytes; bytes -= register_bytes, from += register_bytes, to += register_bytes) {
#if defined(__AVX512F__)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(from));
#else
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#endif
    }
  }
#endif
  (void)past_cache;
  memcpy(to, from, bytes);
}
inline void finish_copies() {
#if defined(__AVX__)
  _mm_sfence();
#endif
}

template <class T>
void sum_rows(const T* const* rows, const Wide<T>* weights, size_t count, size_t n, T* y, bool accumulate) {
  using W = Wide<T>;
  lanes<W>(n, [&](size_t i, auto some) {
    Pack<W> total{};
    for (size_t j = 0; j < count; ++j) {
      const Pack<W> row = load<W>(rows[j] + i, some);
      total += weights ? row * weights[j] : row;
    }
    put(y + i, total, accumulate, some);
  });
}

template <class T>
Wide<T> pull_row(const T* dy, const T* row, Wide<T> weight, size_t n, T* drow, bool accumulate) {
  using W = Wide<T>;
  Pack<W> dots{};
  lanes<W>(n, [&](size_t i, auto some) {
    const Pack<W> d = load<W>(dy + i, some);
    dots += load<W>(row + i, some) * d;  // lanes that aren't meant hold 0
    put(drow + i, d * weight, accumulate, some);
  });
  return sum<W>(dots);
}

}  // namespace DSX_ISA

#define DSX_BODY(T)                        \
  template <>                              \
  const PermuteBody<T> PermuteBody<T>::v3; \
  template <>                              \
  const PermuteBody<T> PermuteBody<T>::v4; \
  template <>                              \
  const PermuteBody<T> PermuteBody<T>::DSX_ISA{DSX_ISA::sum_rows<T>, DSX_ISA::pull_row<T>};
DSX_BODY(float)
DSX_BODY(double)
DSX_BODY(bf16)
#undef DSX_BODY
const CopyBody CopyBody::DSX_ISA{DSX_ISA::copy_bytes, DSX_ISA::finish_copies};

}  // namespace dsx::kernels
