// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every offload policy keeps the laws of its slot.
#include "offload_laws.hpp"

using namespace dsx;

namespace {

/// The archetype.
struct OnDevice {
  Tier rests(Kind, const ParameterInfo&) const { return Tier::device; }
};
static_assert(OffloadPolicy<OnDevice>);

}  // namespace

TEST_CASE("Resident, AnyOffload and the archetype keep the laws of offload") {
  laws::offload(Resident{});
  laws::offload(AnyOffload{});
  laws::offload(OnDevice{});
  const ParameterInfo info{};
  for (const Kind kind : {Kind::weights, Kind::gradients, Kind::state, Kind::activations}) CHECK(Resident{}.rests(kind, info) == Tier::device);
}
