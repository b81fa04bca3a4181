// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every offload policy keeps the laws of its slot, and the laws catch what breaks them.
#include "offload_laws.hpp"

#include <dsx/recipes.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

/// The archetype.
struct OnDevice {
  Tier rests(Kind, const ParameterInfo&) const { return Tier::device; }
};
static_assert(OffloadPolicy<OnDevice>);

/// Breaks the laws: another tier each time it is asked.
struct Wanderer {
  mutable int asked = 0;
  Tier rests(Kind, const ParameterInfo&) const { return ++asked % 2 ? Tier::device : Tier::host; }
};

}  // namespace

TEST_CASE("Resident, AnyOffload and the archetype keep the laws of offload") {
  laws::offload(Resident{});
  laws::offload(AnyOffload{});
  laws::offload(OnDevice{});
  const ParameterInfo info{};
  for (const Kind kind : {Kind::weights, Kind::gradients, Kind::state, Kind::activations}) CHECK(Resident{}.rests(kind, info) == Tier::device);
}
TEST_CASE("Rest keeps the laws of offload for each kind and for all") {
  laws::offload(Rest<OptimizerState>{});
  laws::offload(Rest<Gradients>{Tier::host});
  laws::offload(Rest<Parameters>{Tier::host});
  laws::offload(Rest<Activations>{Tier::host});
  laws::offload(Rest<OptimizerState, Gradients, Parameters, Activations>{Tier::host});
  constexpr Recipe recipe{ZeRO<2>{}, Rest<OptimizerState, Gradients>{Tier::host}};
  static_assert(recipe.get<OffloadSlot>().rests(Kind::state, {}) == Tier::host && recipe.get<OffloadSlot>().rests(Kind::weights, {}) == Tier::device);
  const auto named = choose_recipe("zero2+host_state");
  CHECK(named.get<OffloadSlot>().rests(Kind::state, {}) == Tier::host);
  CHECK(named.get<OffloadSlot>().rests(Kind::gradients, {}) == Tier::device);
  const auto all = choose_recipe("host");
  for (const Kind kind : {Kind::weights, Kind::gradients, Kind::state, Kind::activations})
    CHECK(all.get<OffloadSlot>().rests(kind, {}) == Tier::host);
}
TEST_CASE("the laws of offload catch what breaks them") {
  CHECK(laws::broken([] { laws::offload(Wanderer{}); }) == "another tier the second time");
}
