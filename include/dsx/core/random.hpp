// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Counter-based random numbers: Philox 4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC11).
///
/// A draw is a function of a stream (seed, step, unit, ordinal) and a counter (row id, column), so no layout of rows over ranks changes it.
///
///     float u = uniform(pass.random(), row_id, column);   // in [0, 1)
#pragma once

#include <array>
#include <cstdint>

namespace dsx {

/// Names a row for as long as a step lasts, wherever the row lies.
using RowId = std::uint64_t;

/// Names one stream of random numbers.
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint32_t step = 0, unit = 0, ordinal = 0;
};

/// The four words of Philox 4x32-10.
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ULL * counter[0], b = 0xCD9E8D57ULL * counter[2];
    counter = {std::uint32_t(b >> 32) ^ counter[1] ^ key[0], std::uint32_t(b), std::uint32_t(a >> 32) ^ counter[3] ^ key[1], std::uint32_t(a)};
    key[0] += 0x9E3779B9U, key[1] += 0xBB67AE85U;
  }
  return counter;
}

/// A stream's key of Philox, drawn once an operation. Under one seed no two streams give the same four words, of which these are two:
/// that two streams share a key is a matter of chance, one in 2^64.
constexpr std::array<std::uint32_t, 2> philox_key(const RandomKey& stream) {
  const auto words = philox({stream.step, stream.unit, stream.ordinal, 0}, {std::uint32_t(stream.seed), std::uint32_t(stream.seed >> 32)});
  return {words[0], words[1]};
}

/// Four words for columns 4 block .. 4 block + 3 of a row. Where a row has several planes of columns, as attention's has one a head, they
/// are numbered.
constexpr std::array<std::uint32_t, 4> random_words(const RandomKey& stream, RowId row, std::uint32_t block, std::uint32_t plane = 0) {
  return philox({std::uint32_t(row), std::uint32_t(row >> 32), block, plane}, philox_key(stream));
}

/// A word as a uniform number in [0, 1) with 24 bits.
constexpr float to_uniform(std::uint32_t word) { return float(word >> 8) * 0x1p-24F; }

constexpr float uniform(const RandomKey& stream, RowId row, std::uint32_t column, std::uint32_t plane = 0) {
  return to_uniform(random_words(stream, row, column / 4, plane)[column % 4]);
}

/// FNV-1a: gives each parameter's path a stream of its own.
constexpr std::uint64_t hash_of(const auto& text, std::uint64_t seed = 0) {
  std::uint64_t hash = 0xcbf29ce484222325ULL ^ seed;
  for (const char c : text) hash = (hash ^ std::uint8_t(c)) * 0x100000001b3ULL;
  return hash;
}

}  // namespace dsx
