// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every recompute policy keeps the law of its slot, and the law catches what breaks it.
#include "recompute_laws.hpp"

#include <doctest/doctest.h>

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

/// Breaks the law: a draw of its own shifts all that the layer draws, and dropout drops other elements.
struct DrawsFirst {
  using Slot = RecomputeSlot;
  auto run(const auto& layer, auto flow, Pass& pass) const {
    (void)pass.random();
    return layer(flow);
  }
};
/// Breaks the law: blocks run twice, one behind the other.
struct Doubled {
  using Slot = RecomputeSlot;
  template <class Layer>
  auto run(const Layer& layer, auto flow, Pass&) const {
    if constexpr (std::same_as<Layer, Gpt2Block>)
      return layer(layer(flow));
    else
      return layer(flow);
  }
};

}  // namespace

TEST_CASE("KeepActivations and AnyRecompute keep the law of recompute") {
  laws::recompute(KeepActivations{});
  laws::recompute(AnyRecompute{});
  laws::recompute(AnyRecompute{RecomputeUnits{}});
}
TEST_CASE("RecomputeOperations keeps the law of recompute, whatever classes it names") {
  for (unsigned classes = 0; classes < 8; ++classes) laws::recompute(AnyRecompute{RecomputeOperations{OperationClass(classes)}});
  laws::recompute(RecomputeOperations{});
}
TEST_CASE("RecomputeUnits keeps the law of recompute") { laws::recompute(RecomputeUnits{}); }
TEST_CASE("the archetype of recompute keeps its law") { laws::recompute(OnlyBlocks{}); }
TEST_CASE("the law of recompute catches what breaks it") {
  CHECK(laws::broken([] { laws::recompute(DrawsFirst{}); }) == "other bits than where everything is kept");
  CHECK(laws::broken([] { laws::recompute(Doubled{}); }) == "other bits than where everything is kept");
}
