// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Gradients and losses of a toy step under a recipe: laws that say "the same bits" compare them.
///
///     CHECK(laws::bits_of(Recipe{RecomputeUnits{}}, degrees) == laws::bits_of(Recipe{}, degrees));
#pragma once

#include "law.hpp"
#include "support/runs.hpp"

namespace laws {

using namespace toy;

struct Bits {
  std::vector<float> gradients{}, weights{};
  std::vector<double> losses{};
  bool operator==(const Bits&) const = default;
};

/// Two steps with dropout on thread ranks, each with so many micro-batches.
template <class Recipe>
Bits bits_of(const Recipe& recipe, const Degrees& degrees, Extent micro_batches = 2) {
  Bits bits;
  launch_threads(degrees.ranks(), [&](Session& session) {
    const Mesh mesh{session, degrees};
    Weights weights{mesh, make_model(), recipe};
    const Feed feed{degrees.data, micro_batches};
    Trainer trainer{weights, AdamW{}, TokenLoss{.chunk = 10}, {.micro_batches = micro_batches, .rows = feed.rows(), .clip = clip, .seed = 5}};
    for (Extent step = 0; step < 2; ++step) {
      const double loss = trainer.step(feed(step, mesh.coordinate(Axes::data))).loss;
      for (const ParameterRecord& r : weights.records()) {
        const auto g = weights.template gradient<float>(r.path), w = weights.template weight<float>(r.path);
        if (!session.is_root()) continue;
        bits.gradients.insert(bits.gradients.end(), g.begin(), g.end()), bits.weights.insert(bits.weights.end(), w.begin(), w.end());
      }
      if (session.is_root()) bits.losses.push_back(loss);
    }
  });
  return bits;
}

}  // namespace laws
