// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// How the next token is chosen from logits: temperature, then top-k, then top-p, each renormalised before the next, as Hugging Face
/// orders them.
///
///     std::vector<double> p = probabilities(logits, {.temperature = 0.7, .top_k = 20, .top_p = 0.9});
///     int token = draw(p, uniform(key, sequence, position));
#pragma once

#include <dsx/core/random.hpp>
#include <dsx/core/shape.hpp>

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

namespace dsx {

struct Decoding {
  double temperature = 1;  ///< 0: greedy, the likeliest token
  Extent top_k = 0;        ///< keep the k likeliest, and those equal to the last of them; 0: all
  double top_p = 1;        ///< keep the likeliest until their sum reaches it: the one that crosses it is kept
  std::uint64_t seed = 0;
  Extent beams = 1;           ///< more: beam search, without sampling
  double length_penalty = 1;  ///< of beams: a score is the sum of log probabilities over (new tokens)^penalty
  std::vector<int> ends = {};  ///< tokens that end a sequence

  bool is_end(int token) const { return std::find(ends.begin(), ends.end(), token) != ends.end(); }
};
/// dsx-E723 for a temperature below 0, a top_p outside (0, 1], no beam.
void check(const Decoding& how);

/// Of the whole vocabulary: 0 for what isn't kept. Logits are copied.
std::vector<double> probabilities(std::span<const double> logits, const Decoding& how);
void softmax(std::span<double> logits);
void log_softmax(std::span<double> logits);

/// The first of the largest.
int likeliest(std::span<const double> values);
/// Inverts the sum of probabilities at u in [0, 1), in the vocabulary's order.
int draw(std::span<const double> probabilities, double u);

/// Greedy or sampled: the draw depends on the seed, the sequence and how many tokens it has made, so batches and ranks don't matter.
int choose(std::span<const double> logits, const Decoding& how, Extent sequence, Extent made);

}  // namespace dsx
