// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Chooses tokens.
#include <dsx/core/error.hpp>
#include <dsx/infer/sampling.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace dsx {
namespace {

constexpr double never = -std::numeric_limits<double>::infinity();

}  // namespace

void check(const Decoding& how) {
  if (!(how.temperature >= 0)) fail<723>("a temperature of ", how.temperature, "; 0 is greedy, 1 leaves the model's probabilities");
  if (!(how.top_p > 0 && how.top_p <= 1)) fail<723>("top_p ", how.top_p, " isn't above 0 and at most 1");
  if (how.beams == 0) fail<723>("0 beams can't find a sequence; 1 is no beam search");
}

void softmax(std::span<double> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double& x : logits) sum += x = std::exp(x - top);
  for (double& x : logits) x /= sum;
}

void log_softmax(std::span<double> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double x : logits) sum += std::exp(x - top);
  const double shift = top + std::log(sum);
  for (double& x : logits) x -= shift;
}

std::vector<double> probabilities(std::span<const double> logits, const Decoding& how) {
  std::vector<double> kept(logits.begin(), logits.end());
  if (how.temperature > 0)
    for (double& x : kept) x /= how.temperature;
  if (how.top_k > 0 && how.top_k < kept.size()) {
    std::vector<double> sorted = kept;
    std::nth_element(sorted.begin(), sorted.begin() + std::ptrdiff_t(how.top_k - 1), sorted.end(), std::greater<>{});
    const double least = sorted[how.top_k - 1];
    for (double& x : kept)
      if (x < least) x = never;
  }
  if (how.top_p < 1) {
    std::vector<double> p = kept;
    softmax(p);
    std::vector<std::uint32_t> order(p.size());
    std::iota(order.begin(), order.end(), 0U);
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return p[a] != p[b] ? p[a] < p[b] : a < b; });
    double below = 0;  // the sum of what is less likely
    for (std::size_t i = 0; i + 1 < order.size(); ++i) {
      below += p[order[i]];
      if (below > 1 - how.top_p) break;
      kept[order[i]] = never;
    }
  }
  softmax(kept);
  return kept;
}

int likeliest(std::span<const double> values) { return int(std::max_element(values.begin(), values.end()) - values.begin()); }

int draw(std::span<const double> probabilities, double u) {
  double sum = 0;
  int last = 0;
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    if (probabilities[i] == 0) continue;
    sum += probabilities[i], last = int(i);
    if (u < sum) break;
  }
  return last;
}

int choose(std::span<const double> logits, const Decoding& how, Extent sequence, Extent made) {
  if (how.temperature == 0) return likeliest(logits);
  const RandomKey key{.seed = how.seed, .unit = 0xFFFFF};  // a stream that no unit of a model draws from
  return draw(probabilities(logits, how), double(uniform(key, sequence, std::uint32_t(made))));
}

}  // namespace dsx
