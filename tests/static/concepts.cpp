// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Each concept holds for the least type that its page promises, and for nothing less.
#include <dsx/dsx.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

// A user's policies, written with no other knowledge than the concept's page.
struct UsersSharding {
  using Slot = ShardingSlot;
  Residency residency(const ParameterInfo& info, const Mesh&) const {
    return info.whole.size() < 100 ? Residency{} : Residency{.state = Axes::inner};
  }
};
struct UsersSchedule {
  using Slot = ScheduleSlot;
  Program program(Extent, Extent, Extent) const { return {}; }
};
struct UsersOffload {
  using Slot = OffloadSlot;
  Tier rests(Kind kind, const ParameterInfo&) const { return kind == Kind::state ? Tier::host : Tier::device; }
};
struct UsersQuantizer {
  using Slot = QuantizerSlot;
  const Codec* codec(QuantSite, const ParameterInfo&) const { return nullptr; }
};
struct UsersPrecision {
  using Slot = PrecisionSlot;
  Elements elements() const { return {Element::bf16, Element::f32, Element::f32}; }
};
struct UsersRecompute {
  using Slot = RecomputeSlot;
  auto run(const auto& layer, auto flow, Pass&) const { return layer(flow); }
};
struct UsersSummation {
  using Slot = SummationSlot;
  bool fixed_grains() const { return true; }
};
struct UsersAttention {
  using Slot = AttentionSlot;
  bool cuts_sequences() const { return true; }
};
struct UsersOptimizer {
  std::vector<StateSpec> states(const ParameterInfo&) const { return {}; }
  void update(Bundle&, const Verdict&, const Mesh&) const {}
};
struct UsersObjective {
  Counts counts(const Batch&) const { return {1}; }
  void operator()(Value<Common>, const Counts&) const {}
};
struct Nothing {};

static_assert(ShardingPolicy<UsersSharding> && Policy<UsersSharding> && !ShardingPolicy<Nothing>);
static_assert(PipelineSchedule<UsersSchedule> && Policy<UsersSchedule> && !PipelineSchedule<Nothing>);
static_assert(OffloadPolicy<UsersOffload> && Policy<UsersOffload> && !OffloadPolicy<Nothing>);
static_assert(Quantizer<UsersQuantizer> && Policy<UsersQuantizer> && !Quantizer<Nothing>);
static_assert(PrecisionPolicy<UsersPrecision> && Policy<UsersPrecision> && !PrecisionPolicy<Nothing>);
static_assert(RecomputePolicy<UsersRecompute> && Policy<UsersRecompute> && !RecomputePolicy<Nothing>);
static_assert(Summation<UsersSummation> && Policy<UsersSummation> && !Summation<Nothing>);
static_assert(AttentionExchange<UsersAttention> && Policy<UsersAttention> && !AttentionExchange<Nothing>);
static_assert(Optimizer<UsersOptimizer> && !Optimizer<Nothing>);
static_assert(Objective<UsersObjective, Value<Common>> && !Objective<UsersObjective, Tokens> && !Objective<Nothing, Value<Common>>);
static_assert(!Policy<Nothing> && !Policy<UsersOptimizer>);

// A recipe takes them in any order, and a slot that isn't named has its identity.
constexpr Recipe recipe{Bf16{}, ZeRO<2>{}, GPipe{}};
constexpr Recipe turned{GPipe{}, Bf16{}, ZeRO<2>{}};
static_assert(std::same_as<decltype(recipe.get<ShardingSlot>()), ZeRO<2>> && std::same_as<decltype(turned.get<ShardingSlot>()), ZeRO<2>>);
static_assert(std::same_as<decltype(recipe.get<ScheduleSlot>()), GPipe> && std::same_as<decltype(recipe.get<PrecisionSlot>()), Bf16>);
static_assert(std::same_as<decltype(Recipe{}.get<ShardingSlot>()), Replicate> && std::same_as<decltype(Recipe{}.get<ScheduleSlot>()), SingleStage> &&
              std::same_as<decltype(Recipe{}.get<OffloadSlot>()), Resident> && std::same_as<decltype(Recipe{}.get<QuantizerSlot>()), FullPrecision> &&
              std::same_as<decltype(Recipe{}.get<PrecisionSlot>()), Fp32> && std::same_as<decltype(Recipe{}.get<RecomputeSlot>()), KeepActivations> &&
              std::same_as<decltype(Recipe{}.get<SummationSlot>()), Fast> && std::same_as<decltype(Recipe{}.get<AttentionSlot>()), LocalAttention>);
static_assert(recipe.get<PrecisionSlot>().elements().value == Element::bf16);

// A batch names tokens; a layer's parts carry no storage.
static_assert(std::is_trivially_copyable_v<Parameter> && std::is_trivially_copyable_v<View> && std::is_trivially_copyable_v<Grad>);

}  // namespace

TEST_CASE("every user's policy keeps what its slot is for") {
  const Recipe users{UsersSharding{}, UsersOffload{}, UsersPrecision{}, UsersSummation{}};
  CHECK(users.get<OffloadSlot>().rests(Kind::state, {}) == Tier::host);
  CHECK(users.get<PrecisionSlot>().elements().value == Element::bf16);
  CHECK(users.get<SummationSlot>().fixed_grains());
  const AnyRecipe any{AnySharding{UsersSharding{}}, AnySchedule{UsersSchedule{}}, AnyOffload{UsersOffload{}}, AnyPrecision{UsersPrecision{}},
                      AnyRecompute{}};
  CHECK(any.get<OffloadSlot>().rests(Kind::state, {}) == Tier::host);
  CHECK(any.get<OffloadSlot>().rests(Kind::weights, {}) == Tier::device);
  CHECK(any.get<PrecisionSlot>().elements() == UsersPrecision{}.elements());
}
