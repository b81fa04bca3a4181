// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every recompute policy keeps the law of its slot.
#include "recompute_laws.hpp"

using namespace dsx;

namespace {

/// The archetype, a user's own: blocks are played again, the two ends are kept.
struct OnlyBlocks {
  using Slot = RecomputeSlot;
  template <class Layer>
  auto run(const Layer& layer, auto flow, Pass& pass) const {
    if constexpr (std::same_as<Layer, Gpt2Block>)
      return pass.recompute([&layer](auto x) { return layer(x); }, flow);
    else
      return layer(flow);
  }
};
static_assert(RecomputePolicy<OnlyBlocks>);

}  // namespace

TEST_CASE("KeepActivations and AnyRecompute keep the law of recompute") {
  laws::recompute(KeepActivations{});
  laws::recompute(AnyRecompute{});
  laws::recompute(AnyRecompute{RecomputeUnits{}});
}
TEST_CASE("RecomputeUnits keeps the law of recompute") { laws::recompute(RecomputeUnits{}); }
TEST_CASE("the archetype of recompute keeps its law") { laws::recompute(OnlyBlocks{}); }
