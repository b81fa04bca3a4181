// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Each concept holds for the least type that its page promises, and for nothing less.
#include <dsx/dsx.hpp>
#include <dsx/policy/expert_router.hpp>

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
struct UsersRouter {  // is no policy of a recipe: it stands in the model
  void parts(auto&) const {}
  Routes operator()(Value<Common>) const { return {.experts = 2, .choices = 1, .capacity = 8, .chosen = 3, .weights = 4, .counts = 5}; }
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
static_assert(ExpertRouter<UsersRouter> && !Policy<UsersRouter> && !ExpertRouter<Nothing>);
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

/// Excludes a policy of another slot, and the identity of a third.
struct Picky {
  using Slot = ShardingSlot;
  static constexpr Exclusion excludes[]{excluding<GPipe>("all gradients would come at once"), excluding<KeepActivations>("memory is for weights")};
  Residency residency(const ParameterInfo&, const Mesh&) const { return {}; }
};
template <class... P>
inline constexpr bool conflict = detail::Tags<P...>::conflict();
static_assert(conflict<Picky> && conflict<Picky, GPipe> && conflict<RecomputeUnits, GPipe, Picky> && conflict<KeepActivations, Picky>);
static_assert(!conflict<Picky, RecomputeUnits> && !conflict<OneForwardOneBackward, RecomputeUnits, Picky> && !conflict<GPipe> && !conflict<>);

}  // namespace

TEST_CASE("policies chosen at run time that exclude each other are refused as their types are: dsx-E107") {
  const auto refusal = [](auto make) -> std::string {
    try {
      make();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const char* gpipe = "dsx-E107: the sharding of this recipe excludes its pipeline schedule: all gradients would come at once; drop one of the two";
  CHECK(refusal([] { (void)Recipe{AnySharding{Picky{}}, GPipe{}, RecomputeUnits{}}; }) == gpipe);
  CHECK(refusal([] { (void)Recipe{RecomputeUnits{}, AnySchedule{GPipe{}}, AnySharding{Picky{}}}; }) == gpipe);
  CHECK(refusal([] { (void)AnyRecipe{AnySchedule{GPipe{}}, AnySharding{Picky{}}, RecomputeUnits{}}; }) == gpipe);
  CHECK(refusal([] { (void)AnyRecipe{AnySharding{Picky{}}}; }) ==
        "dsx-E107: the sharding of this recipe excludes its recompute: memory is for weights; drop one of the two");
  CHECK(refusal([] { (void)AnyRecipe{AnySharding{Picky{}}, AnySchedule{OneForwardOneBackward{}}, RecomputeUnits{}}; }) == "");
}

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

TEST_CASE("a recipe chosen at run time is made of policies in any order, or of any recipe") {
  const AnyRecipe any{UsersAttention{}, UsersSummation{}, UsersQuantizer{}, RecomputeUnits{},
                      UsersPrecision{}, UsersOffload{},   GPipe{},          UsersSharding{}};
  CHECK(any.get<AttentionSlot>().cuts_sequences());
  CHECK(any.get<SummationSlot>().fixed_grains());
  CHECK(any.get<QuantizerSlot>().tag().id == policy_id<UsersQuantizer>);
  CHECK(any.get<RecomputeSlot>().tag().id == policy_id<RecomputeUnits>);
  CHECK(any.get<ScheduleSlot>().program(0, 2, 8).live() == 8);
  CHECK(any.get<ShardingSlot>().tag().id == policy_id<UsersSharding>);
  const AnyRecipe of_types = Recipe{UsersSummation{}, ZeRO<3>{}}, none{};
  CHECK(of_types.get<SummationSlot>().fixed_grains());
  CHECK(of_types.get<ShardingSlot>().tag().id == policy_id<ZeRO<3>>);
  CHECK_FALSE(none.get<SummationSlot>().fixed_grains());
  CHECK_FALSE(none.get<AttentionSlot>().cuts_sequences());
  CHECK(none.get<QuantizerSlot>().codec(QuantSite::gather, {}) == nullptr);
  CHECK(none.get<RecomputeSlot>().tag().id == policy_id<KeepActivations>);
}
