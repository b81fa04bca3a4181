// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Causal attention over ragged sequences by online softmax (Milakov & Gimelshein 2018; Dao et al. 2022): never a T x T matrix.
///
///     kernels::attention(qkv, {.query = 12, .key_value = 12, .dim = 64}, sequences, y, log_sums_RH);
///
/// A row of qkv holds its queries, keys and values, each head by head: (query + 2 key_value) dim columns.
#pragma once

#include <dsx/tensor/rows.hpp>
#include <dsx/tensor/view.hpp>

#include <algorithm>
#include <cmath>
#include <span>

namespace dsx {

/// Heads on this rank; query heads share key_value heads in equal groups. `first`: number of the first query head among the model's.
struct Heads {
  Extent query = 1, key_value = 1, dim = 1, first = 0;
  constexpr Extent columns() const { return (query + 2 * key_value) * dim; }
};

namespace kernels {

/// Inverted dropout of probabilities: one is kept, and divided by 1 - rate, where uniform(key, the query's id, the key's number in its
/// sequence, the head's number in the model) >= rate. Nothing is stored: the pullback draws once more.
struct AttentionDropout {
  double rate = 0;
  RandomKey key{};
  const RowId* ids_R = nullptr;
};

/// y_R(query dim) = dropout(softmax(q k' / sqrt(dim))) v over the rows of the same sequence up to this one. log_sums_RH, in wide(element),
/// holds each softmax's log of sum of exponentials for the pullback.
void attention(View qkv, const Heads& heads, const Sequences& sequences, View y, View log_sums_RH, const AttentionDropout& dropout = {});
/// dqkv = or += the pullback of dy, with the forward's dropout. Scratch: attention_scratch bytes.
void attention_pullback(View qkv, const Heads& heads, const Sequences& sequences, View y, View log_sums_RH, View dy, Grad dqkv, View scratch,
                        const AttentionDropout& dropout = {});
/// Depends on the bound of rows, heads and element alone.
Extent attention_scratch(Extent rows, const Heads& heads, Element element);

/// Keys and values of one sequence: `length` rows of (key_value dim) columns are filled, the new rows among them.
struct KeyValues {
  View keys{}, values{};
  Extent length = 0;
};
/// Attention of new rows at the ends of cached sequences: sequence s's new rows are the last of its caches[s].length.
void attention_cached(View qkv, const Heads& heads, const Sequences& sequences, std::span<const KeyValues> caches, View y);

}  // namespace kernels
}  // namespace dsx

namespace dsx::reference {

/// What a probability is multiplied by.
inline double kept(const kernels::AttentionDropout& dropout, Extent query, Extent head, Extent key) {
  if (dropout.rate == 0) return 1;
  return double(uniform(dropout.key, dropout.ids_R[query], std::uint32_t(key), std::uint32_t(head))) >= dropout.rate ? 1 / (1 - dropout.rate) : 0;
}

/// For each head and row: the softmax of its scores with the rows of its sequence up to itself.
template <class T>
void attention(const T* qkv, const Heads& heads, const Sequences& sequences, T* y, Wide<T>* log_sums_RH,
               const kernels::AttentionDropout& dropout = {}) {
  const Extent columns = heads.columns(), group = heads.query / heads.key_value;
  for (Extent s = 0; s < sequences.count(); ++s)
    for (Extent row = sequences[s].begin; row < sequences[s].end; ++row)
      for (Extent head = 0; head < heads.query; ++head) {
        const T* const q = qkv + row * columns + head * heads.dim;
        const auto key = [&](Extent other) { return qkv + other * columns + (heads.query + head / group) * heads.dim; };
        const auto value = [&](Extent other) { return key(other) + heads.key_value * heads.dim; };
        const auto score = [&](Extent other) {
          double sum = 0;
          for (Extent d = 0; d < heads.dim; ++d) sum += double(q[d]) * double(key(other)[d]);
          return sum / std::sqrt(double(heads.dim));
        };
        double top = score(row), sum = 0;
        for (Extent other = sequences[s].begin; other < row; ++other) top = std::max(top, score(other));
        for (Extent other = sequences[s].begin; other <= row; ++other) sum += std::exp(score(other) - top);
        for (Extent d = 0; d < heads.dim; ++d) {
          double mean = 0;
          for (Extent other = sequences[s].begin; other <= row; ++other)
            mean += kept(dropout, row, heads.first + head, other - sequences[s].begin) * std::exp(score(other) - top) / sum * double(value(other)[d]);
          y[(row * heads.query + head) * heads.dim + d] = T(Wide<T>(mean));
        }
        log_sums_RH[row * heads.query + head] = Wide<T>(top + std::log(sum));
      }
}

/// dqkv, in double, must be zero or hold what is added to.
template <class T>
void attention_pullback(const T* qkv, const Heads& heads, const Sequences& sequences, const T* dy, double* dqkv,
                        const kernels::AttentionDropout& dropout = {}) {
  const Extent columns = heads.columns(), group = heads.query / heads.key_value;
  const double scale = 1 / std::sqrt(double(heads.dim));
  for (Extent s = 0; s < sequences.count(); ++s)
    for (Extent row = sequences[s].begin; row < sequences[s].end; ++row)
      for (Extent head = 0; head < heads.query; ++head) {
        const Extent query = row * columns + head * heads.dim;
        const auto key = [&](Extent other) { return other * columns + (heads.query + head / group) * heads.dim; };
        const auto value = [&](Extent other) { return key(other) + heads.key_value * heads.dim; };
        const T* const slope = dy + (row * heads.query + head) * heads.dim;
        const auto dot = [&](const T* a, const T* b) {
          double sum = 0;
          for (Extent d = 0; d < heads.dim; ++d) sum += double(a[d]) * double(b[d]);
          return sum;
        };
        const auto weight = [&](Extent other) { return std::exp(scale * dot(qkv + query, qkv + key(other))); };
        const auto factor = [&](Extent other) { return kept(dropout, row, heads.first + head, other - sequences[s].begin); };
        const auto toward = [&](Extent other) { return factor(other) * dot(slope, qkv + value(other)); };
        double sum = 0, mean = 0;
        for (Extent other = sequences[s].begin; other <= row; ++other) sum += weight(other);
        for (Extent other = sequences[s].begin; other <= row; ++other) mean += weight(other) / sum * toward(other);
        for (Extent other = sequences[s].begin; other <= row; ++other) {
          const double p = weight(other) / sum, dscore = p * (toward(other) - mean) * scale;
          for (Extent d = 0; d < heads.dim; ++d) {
            dqkv[value(other) + d] += factor(other) * p * double(slope[d]);
            dqkv[query + d] += dscore * double(qkv[key(other) + d]);
            dqkv[key(other) + d] += dscore * double(qkv[query + d]);
          }
        }
      }
}

}  // namespace dsx::reference
