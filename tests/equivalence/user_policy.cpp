// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A user's own sharding policy, in his own file: no header knows it. It keeps the laws of its slot and the trajectory of one rank.
// labels: traj laws
#include "laws/sharding_laws.hpp"

#include <doctest/doctest.h>

using namespace dsx;

namespace {

/// Cuts what is large over all data ranks, of what is middling the weights over the near ones, and leaves the rest whole.
struct BySize {
  using Slot = ShardingSlot;
  Extent large = 400, middling = 90;
  Residency residency(const ParameterInfo& info, const Mesh&) const {
    if (info.whole.size() >= large) return {Axes::data, Axes::inner, Axes::data, Axes::data};
    if (info.whole.size() >= middling) return {Axes::inner, Axes::inner, Axes::data, Axes::data};
    return info.role == Role::vector ? Residency{} : Residency{.state = Axes::data};
  }
};
static_assert(ShardingPolicy<BySize>);

}  // namespace

TEST_CASE("a user's sharding policy keeps the laws") { laws::sharding(BySize{}); }

TEST_CASE("a user's sharding policy equals one rank") {
  using namespace toy;
  const auto run = [](Degrees degrees, Extent micro_batches, const auto& recipe) {
    Run run;
    const Feed feed{degrees.data, micro_batches};
    launch_threads(degrees.ranks(), [&](Session& session) {
      const Mesh mesh{session, degrees};
      Weights weights{mesh, make_model(), recipe};
      Trainer trainer{weights,
                      AdamW{.rate = 3e-3, .epsilon = 1e-5},
                      TokenLoss{.chunk = 10},
                      {.micro_batches = micro_batches, .rows = feed.rows(), .clip = clip, .seed = 3}};
      for (Extent step = 0; step < steps; ++step) {
        const Verdict v = trainer.step(feed(step, mesh.coordinate(Axes::data)));
        if (session.is_root()) run.losses.push_back(v.loss), run.norms.push_back(std::sqrt(v.squared_norm));
      }
      for (const ParameterRecord& r : weights.records()) {
        auto w = weights.template weight<double>(r.path);
        if (session.is_root()) run.weights.push_back({r.path, std::move(w)});
      }
    });
    return run;
  };
  const Recipe recipe{BySize{}, OneForwardOneBackward{}, Fp64{}};
  const Run one = run({}, 1, recipe);
  for (const Degrees& degrees : {Degrees{.data = 4, .inner = 2}, Degrees{.data = 2, .inner = 2, .tensor = 2, .pipe = 2, .token_split = true},
                                 Degrees{.data = 4, .inner = 2, .tensor = 2}})
    for (const Extent micro_batches : {1, 2}) CHECK(distance(run(degrees, micro_batches, recipe), one) <= 1e-12);
}
