// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every sharding policy keeps the laws of its slot, and the laws catch what breaks them.
#include "sharding_laws.hpp"

#include <doctest/doctest.h>

using namespace dsx;

namespace {

/// The archetype: nothing but what the concept asks for.
struct Least {
  using Slot = ShardingSlot;
  Residency residency(const ParameterInfo&, const Mesh&) const { return {}; }
};
static_assert(ShardingPolicy<Least>);

/// Break the laws, each in its way.
struct ByRank {
  Residency residency(const ParameterInfo&, const Mesh& mesh) const {
    return mesh.coordinate(Axes::data) == 0 ? Residency{} : Residency{.state = Axes::data};
  }
};
struct WithoutState {
  Residency residency(const ParameterInfo&, const Mesh&) const { return {.forward = Axes::data, .backward = Axes::data}; }
};

}  // namespace

TEST_CASE("Replicate keeps the laws of sharding") { laws::sharding(Replicate{}); }
TEST_CASE("ZeRO-1 keeps the laws of sharding") { laws::sharding(ZeRO<1>{}); }
TEST_CASE("ZeRO-2 keeps the laws of sharding") { laws::sharding(ZeRO<2>{}); }
TEST_CASE("ZeRO-3 keeps the laws of sharding") { laws::sharding(ZeRO<3>{}); }
TEST_CASE("MiCS keeps the laws of sharding") { laws::sharding(MiCS{}); }
TEST_CASE("hpZ keeps the laws of sharding") { laws::sharding(HpZ{}); }
TEST_CASE("the archetype of sharding keeps its laws") { laws::sharding(Least{}); }
TEST_CASE("AnySharding keeps the laws of sharding and answers as what it holds") {
  laws::sharding(AnySharding{});
  laws::sharding(AnySharding{ZeRO<3>{}});
  Session session = Session::dry(0, 4);
  const Mesh mesh{session, {.data = 4, .inner = 2}};
  const ParameterInfo info{.whole = {3, 4}, .summed_over = Axes::data};
  CHECK(AnySharding{}.residency(info, mesh) == Replicate{}.residency(info, mesh));
  CHECK(AnySharding{ZeRO<2>{}}.residency(info, mesh) == ZeRO<2>{}.residency(info, mesh));
  CHECK(AnySharding{HpZ{}}.residency(info, mesh) == HpZ{}.residency(info, mesh));
}
TEST_CASE("the laws of sharding catch what breaks them") {
  CHECK(laws::broken([] { laws::sharding(ByRank{}); }).find(": another answer on another rank") != std::string::npos);
  CHECK(laws::broken([] { laws::sharding(WithoutState{}); }).find("dsx-E103") == 0);
}
