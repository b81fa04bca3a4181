// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Loops of permute and combine over one token's rows, compiled once for each instruction set.
///
///     pick<PermuteBody<T>>().sum(rows, next, weights, count, columns, y, {});   // y = sum of weight x row; without weights of rows
///     dot = pick<PermuteBody<T>>().pull(dy, row, next, weight, columns, drow, {});
///
/// Rows of one token lie anywhere, and no prefetcher of the processor guesses where the next token's begin: `next` says it. Where buffers are
/// larger than the cache, results go to memory directly, so that no line is fetched to be overwritten, and what is read leaves the cache's
/// bandwidth to itself. The numbers are the same either way.
#pragma once

#include "simd.hpp"

namespace dsx::kernels {

/// How a result is written. `past_cache`: it is read again when the cache has long forgotten it; rows begin at lines of a cache and are a
/// number of whole ones. A thread that wrote so must call done() before another reads.
struct Writing {
  bool accumulate = false, past_cache = false;
};

template <class T>
struct PermuteBody {
  /// `next`: as many rows that will be read soon.
  void (*sum)(const T* const* rows, const T* const* next, const Wide<T>* weights, std::size_t count, std::size_t n, T* y, Writing how);
  /// drow = or += weight dy; gives the product of row and dy.
  Wide<T> (*pull)(const T* dy, const T* row, const T* next, Wide<T> weight, std::size_t n, T* drow, Writing how);
  static const PermuteBody v3, v4;
};
struct CopyBody {
  /// The same bytes to several places.
  void (*copy)(const std::byte* from, std::byte* const* to, std::size_t count, std::size_t bytes, bool past_cache);
  void (*done)();
  static const CopyBody v3, v4;
};

namespace DSX_ISA {

/// Past the cache, where the instruction set can.
DSX_INLINE void stream_register(void* to, const void* from) {
#if defined(__AVX512F__)
  _mm512_stream_si512(static_cast<__m512i*>(to), _mm512_loadu_si512(from));
#elif defined(__AVX__)
  _mm256_stream_si256(static_cast<__m256i*>(to), _mm256_loadu_si256(static_cast<const __m256i*>(from)));
#else
  memcpy(to, from, register_bytes);
#endif
}
DSX_INLINE void stream_half(void* to, Halves h) {
#if defined(__AVX512F__)
  _mm256_stream_si256(static_cast<__m256i*>(to), __m256i(h));
#elif defined(__AVX__)
  _mm_stream_si128(static_cast<__m128i*>(to), __m128i(h));
#else
  memcpy(to, &h, sizeof h);
#endif
}
DSX_INLINE void put_past(bf16* p, Pack<float> v) { stream_half(p, narrow(v)); }
template <class W>
DSX_INLINE void put_past(W* p, Pack<W> v) {
  stream_register(p, &v);
}

inline void copy_rows(const std::byte* from, std::byte* const* to, size_t count, size_t bytes, bool past_cache) {
  if (past_cache)
    for (size_t i = 0; i < bytes; i += register_bytes)
      for (size_t j = 0; j < count; ++j) stream_register(to[j] + i, from + i);
  else
    for (size_t j = 0; j < count; ++j) memcpy(to[j], from, bytes);
}
inline void finish_writing() {
#if defined(__AVX__)
  _mm_sfence();
#endif
}

template <bool Far, class T>
DSX_INLINE void fetch(const T* p) {
  if constexpr (Far) __builtin_prefetch(p, 0, 2);  // to the second cache: the first one has no room for what comes so late
}
template <bool Far, class T, class Some>
DSX_INLINE void write(T* p, Pack<Wide<T>> v, Writing how, Some some) {
  if constexpr (Far && std::is_same_v<Some, Whole>)
    if (!how.accumulate) return put_past(p, v);
  put(p, v, how.accumulate, some);
}

template <bool Far, class T>
void sum_rows(const T* const* rows, const T* const* next, const Wide<T>* weights, size_t count, size_t n, T* y, Writing how) {
  using W = Wide<T>;
  lanes<W>(n, [&](size_t i, auto some) {
    Pack<W> total{};
    for (size_t j = 0; j < count; ++j) {
      fetch<Far>(next[j] + i);
      const Pack<W> row = load<W>(rows[j] + i, some);
      total += weights ? row * weights[j] : row;
    }
    write<Far>(y + i, total, how, some);
  });
}

template <bool Far, class T>
Wide<T> pull_row(const T* dy, const T* row, const T* next, Wide<T> weight, size_t n, T* drow, Writing how) {
  using W = Wide<T>;
  Pack<W> dots{};
  lanes<W>(n, [&](size_t i, auto some) {
    fetch<Far>(next + i);
    const Pack<W> d = load<W>(dy + i, some);
    dots += load<W>(row + i, some) * d;  // lanes that aren't meant hold 0
    write<Far>(drow + i, d * weight, how, some);
  });
  return sum<W>(dots);
}

template <class T>
void sum(const T* const* rows, const T* const* next, const Wide<T>* weights, size_t count, size_t n, T* y, Writing how) {
  (how.past_cache ? sum_rows<true, T> : sum_rows<false, T>)(rows, next, weights, count, n, y, how);
}
template <class T>
Wide<T> pull(const T* dy, const T* row, const T* next, Wide<T> weight, size_t n, T* drow, Writing how) {
  return (how.past_cache ? pull_row<true, T> : pull_row<false, T>)(dy, row, next, weight, n, drow, how);
}

}  // namespace DSX_ISA

#define DSX_BODY(T)                        \
  template <>                              \
  const PermuteBody<T> PermuteBody<T>::v3; \
  template <>                              \
  const PermuteBody<T> PermuteBody<T>::v4; \
  template <>                              \
  const PermuteBody<T> PermuteBody<T>::DSX_ISA{DSX_ISA::sum<T>, DSX_ISA::pull<T>};
DSX_BODY(float)
DSX_BODY(double)
DSX_BODY(bf16)
#undef DSX_BODY
const CopyBody CopyBody::DSX_ISA{DSX_ISA::copy_rows, DSX_ISA::finish_writing};

}  // namespace dsx::kernels
