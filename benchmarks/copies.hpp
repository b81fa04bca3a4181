// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What kernels that move memory are measured by: plain copies and a plain read of a machine, on the threads of dsx's kernels.
///
///     for (const Copy& way : copies)                    // the fastest of them is the machine's
///       on_threads(n, [&](dsx::Range r) { way.run(from + r.begin, to + r.begin, r.size()); });
#pragma once

#include <dsx/core/shape.hpp>

#include <cstddef>
#include <cstring>
#if defined(__AVX__)
#include <immintrin.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

namespace dsx::benchmarks {

/// f(range) over [0, count) in whole pages, one part a thread.
template <class F>
void on_threads(Extent count, const F& f) {
#ifdef _OPENMP
  constexpr Extent page = 4096;
  const Extent pages = (count + page - 1) / page;
#pragma omp parallel
  {
    const Range r = share({0, pages}, Extent(omp_get_num_threads()), Extent(omp_get_thread_num()));
    f(Range{r.begin * page, std::min(count, r.end * page)});
  }
#else
  f(Range{0, count});
#endif
}

/// One line of a cache past the cache. Both begin at lines.
inline void stream_line(const std::byte* from, std::byte* to) {
#if defined(__AVX__)
  for (Extent i = 0; i < 64; i += 32)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), _mm256_load_si256(reinterpret_cast<const __m256i*>(from + i)));
#else
  std::memcpy(to, from, 64);
#endif
}

inline void library_copy(const std::byte* from, std::byte* to, Extent bytes) { std::memcpy(to, from, bytes); }
inline void streamed_copy(const std::byte* from, std::byte* to, Extent bytes) {
  for (Extent i = 0; i < bytes; i += 64) stream_line(from + i, to + i);
}
/// Line by line of four pages in turn: more is under way at once than one stream brings.
inline void streamed_copy_by_pages(const std::byte* from, std::byte* to, Extent bytes) {
  constexpr Extent page = 4096, whole = 4 * page;
  const Extent even = bytes / whole * whole;
  for (Extent first = 0; first < even; first += whole)
    for (Extent i = 0; i < page; i += 64)
      for (Extent p = 0; p < whole; p += page) stream_line(from + first + p + i, to + first + p + i);
  streamed_copy(from + even, to + even, bytes - even);
}

struct Copy {
  const char* name;
  void (*run)(const std::byte* from, std::byte* to, Extent bytes);
};
/// Bytes in whole lines of a cache.
inline constexpr Copy copies[] = {
    {"memcpy", library_copy}, {"streaming stores", streamed_copy}, {"streaming stores to four pages in turn", streamed_copy_by_pages}};

/// Reads everything; the sum is only there to be kept.
inline float read(const std::byte* from, Extent bytes) {
  typedef float Pack __attribute__((vector_size(32)));
  const auto at = [&](Extent i) {
    Pack some;
    std::memcpy(&some, from + i, sizeof some);
    return some;
  };
  Pack a{}, b{}, c{}, d{};
  for (Extent i = 0; i + 128 <= bytes; i += 128) a += at(i), b += at(i + 32), c += at(i + 64), d += at(i + 96);
  const Pack all = a + b + (c + d);
  return all[0] + all[1] + all[2] + all[3] + all[4] + all[5] + all[6] + all[7];
}

}  // namespace dsx::benchmarks
