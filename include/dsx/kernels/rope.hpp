// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Rotary positions (Su et al. 2021), half-split as in Llama: channel d of a head turns with channel d + dim / 2, by an angle that grows
/// with the row's position.
///
///     kernels::rope(qkv, {.query = 12, .key_value = 4, .dim = 64}, positions, {.base = 500000}, turned);
///
/// A row of qkv holds its queries, keys and values, each head by head: queries and keys turn, values are copied.
#pragma once

#include <dsx/core/rope.hpp>
#include <dsx/kernels/attention.hpp>

#include <vector>

namespace dsx {

/// Radians a position of each pair of channels, dim / 2 of them.
void rope_frequencies(const Rope& rope, Extent dim, double* of_pairs);

namespace kernels {

/// positions: one a row of y. An even dim of at most 512.
void rope(View qkv, const Heads& heads, std::span<const int> positions, const Rope& rope, View y);
/// dqkv = or += dy turned back.
void rope_pullback(View dy, const Heads& heads, std::span<const int> positions, const Rope& rope, Grad dqkv);

}  // namespace kernels
}  // namespace dsx

namespace dsx::reference {

/// direction 1 turns, -1 turns back; to = or += the turned queries and keys, and the values as they are.
template <class T, class G>
void rope(const T* from, const Heads& heads, std::span<const int> positions, const Rope& rope, double direction, G* to, bool accumulate) {
  const Extent half = heads.dim / 2, turning = heads.query + heads.key_value, columns = heads.columns();
  std::vector<double> frequencies(half);
  rope_frequencies(rope, heads.dim, frequencies.data());
  const auto put = [&](Extent at, double value) { to[at] = G(Wide<G>(accumulate ? double(to[at]) + value : value)); };
  for (Extent r = 0; r < positions.size(); ++r) {
    for (Extent head = 0; head < turning; ++head)
      for (Extent d = 0; d < half; ++d) {
        const Extent low = r * columns + head * heads.dim + d, high = low + half;
        const double angle = double(positions[r]) * frequencies[d];
        const double c = rope.amplitude * std::cos(angle), s = direction * rope.amplitude * std::sin(angle), x = double(from[low]),
                     y = double(from[high]);
        put(low, x * c - y * s), put(high, y * c + x * s);
      }
    for (Extent i = r * columns + turning * heads.dim; i < (r + 1) * columns; ++i) put(i, double(from[i]));
  }
}

}  // namespace dsx::reference
