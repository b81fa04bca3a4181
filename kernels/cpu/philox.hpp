// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Philox on as many counters at once as a register has room for, compiled once for each instruction set; the words are random_words()'.
///
///     const Draw draw = draw_of(stream, rate);                  // by the caller, once
///     draw_words(draw, row, block, 0, words);                   // of blocks block, block + 1, ...
///     draw_factors(draw, row, first, head, n, 1.25F, factors);  // 1.25 where a column is kept, else 0
#pragma once

#include "simd.hpp"

#include <dsx/core/random.hpp>

namespace dsx::kernels {

/// What dropout needs of its stream: the key, and the first 24-bit number that is kept, for uniform >= rate is a comparison of integers.
struct Draw {
  std::uint32_t key[2], threshold;
};
DSX_INLINE Draw draw_of(const RandomKey& stream, double rate) {
  const auto key = philox_key(stream);
  return {{key[0], key[1]}, std::uint32_t(ceil(rate * 0x1p24))};
}

namespace DSX_ISA {

/// Each lane holds one 32-bit word.
using Words = Pack<std::uint64_t>;
inline constexpr size_t counters = count_of<std::uint64_t>;

DSX_INLINE Words product(Words a, std::uint64_t b) {
#if defined(__AVX512F__)
  return Words(_mm512_maskz_mul_epu32(0xFF, __m512i(a), _mm512_set1_epi64(static_cast<long long>(b))));
#elif defined(__AVX2__)
  return Words(_mm256_mul_epu32(__m256i(a), _mm256_set1_epi64x(static_cast<long long>(b))));
#else
  return (a & 0xFFFFFFFFU) * b;
#endif
}

/// The words of blocks first, first + 1, ... of a row's plane, in the order of columns.
DSX_INLINE void draw_words(const Draw& draw, std::uint64_t row, std::uint32_t first, std::uint32_t plane, std::uint32_t* words) {
  Words c0 = spread<std::uint64_t>(std::uint32_t(row)), c1 = spread<std::uint64_t>(row >> 32), c2{}, c3 = spread<std::uint64_t>(plane);
  for (size_t i = 0; i < counters; ++i) c2[i] = std::uint32_t(first + i);
  std::uint32_t key0 = draw.key[0], key1 = draw.key[1];
  for (int round = 0; round < 10; ++round) {
    const Words a = product(c0, 0xD2511F53U), b = product(c2, 0xCD9E8D57U);
    // The upper halves of c1 and c3 hold rubbish: only the lower ones are ever used.
    const Words next0 = (b >> 32) ^ c1 ^ std::uint64_t(key0), next2 = (a >> 32) ^ c3 ^ std::uint64_t(key1);
    c0 = next0, c1 = b, c2 = next2, c3 = a;
    key0 += 0x9E3779B9U, key1 += 0xBB67AE85U;
  }
  std::uint64_t pairs[2][counters];
  const Words low = (c0 & 0xFFFFFFFFU) | (c1 << 32), high = (c2 & 0xFFFFFFFFU) | (c3 << 32);
  memcpy(pairs[0], &low, sizeof low), memcpy(pairs[1], &high, sizeof high);
  for (size_t i = 0; i < counters; ++i) memcpy(words + 4 * i, &pairs[0][i], 8), memcpy(words + 4 * i + 2, &pairs[1][i], 8);
}

/// factors[j] for columns first .. first + n of a row's plane: `factor` where uniform >= rate, else 0. `first` is a multiple of 4; n is
/// rounded up to whole calls of draw_words.
template <class W>
DSX_INLINE void draw_factors(const Draw& draw, std::uint64_t row, std::uint32_t first, std::uint32_t plane, size_t n, W factor, W* factors) {
  for (size_t i = 0; i < n; i += 4 * counters) {
    std::uint32_t words[4 * counters];
    draw_words(draw, row, std::uint32_t((first + i) / 4), plane, words);
    if constexpr (sizeof(W) == 4)
      lanes<W>(4 * counters, [&](size_t j, auto some) {
        store(factors + i + j, (load<std::uint32_t>(words + j, some) >> 8) >= draw.threshold ? spread(factor) : Pack<W>{}, some);
      });
    else
      for (size_t j = 0; j < 4 * counters; ++j) factors[i + j] = (words[j] >> 8) >= draw.threshold ? factor : W(0);
  }
}

}  // namespace DSX_ISA
}  // namespace dsx::kernels
