// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include "io/io_support.hpp"

#include <dsx/optim/any_optimizer.hpp>
#include <dsx/recipes.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::error_of;

TEST_CASE("names of recipes choose policies") {
  Session session = Session::dry(0, 4);
  const Mesh mesh{session, {.data = 4}};
  const ParameterInfo info{.summed_over = Axes::data};
  const AnyRecipe choice = choose_recipe("zero3+bf16+recompute+gpipe");
  CHECK(choice.get<ShardingSlot>().residency(info, mesh) == ZeRO<3>{}.residency(info, mesh));
  CHECK(choice.get<PrecisionSlot>().elements() == Bf16{}.elements());
  CHECK(choice.get<RecomputeSlot>().units());
  CHECK(choose_recipe("selective").get<RecomputeSlot>().tag().id == policy_id<RecomputeOperations>);
  CHECK(choice.get<ScheduleSlot>().program(0, 2, 4).live() == 4);
  CHECK(choose_recipe("").get<ShardingSlot>().residency(info, mesh) == Residency{});
  CHECK(choose_recipe("zero1", 2).get<ScheduleSlot>().program(0, 2, 4).live() == 2);  // several stages without a schedule: 1F1B
  for (const RecipeName& r : recipe_names) {
    CHECK(list_of_recipes().find(std::string{"\n  "} + std::string{r.name} + " ") != std::string::npos);
    CHECK(error_of([&] { choose_recipe(r.name); }) == 0);
  }
}

TEST_CASE("every slot of a recipe has a name for its identity, and takes it") {
  const AnyRecipe identities = choose_recipe("replicate+single+resident+full+fp32+keep+local+fast", 2), none{};
  const auto same = [&]<class... S>(SlotList<S...>) { return ((identities.get<S>().tag().id == policy_id<typename Identity<S>::type>) && ...); };
  CHECK(same(Slots{}));
  const auto unnamed = [&]<class... S>(SlotList<S...>) { return ((none.get<S>().tag().id == identities.get<S>().tag().id) && ...); };
  CHECK(unnamed(Slots{}));
  for (const RecipeName& r : recipe_names) {
    const AnyRecipe chosen = choose_recipe(r.name);
    const auto holds = [&]<class... S>(SlotList<S...>) { return ((chosen.get<S>().tag().id == r.tag.id) || ...); };
    CHECK_MESSAGE(holds(Slots{}), r.name);
  }
}

TEST_CASE("a blend chooses five slots at once, may be joined, and is listed with what it stands for") {
  for (const RecipeBlend& b : recipe_blends) {
    CHECK_MESSAGE(recipe_words(b.name).size() == 5, b.name);
    const AnyRecipe blend = choose_recipe(b.name), spelled = choose_recipe(b.names);
    const auto same = [&]<class... S>(SlotList<S...>) { return ((blend.get<S>().tag().id == spelled.get<S>().tag().id) && ...); };
    CHECK_MESSAGE(same(Slots{}), b.name);
    CHECK(list_of_recipes().find(concat(b.text, ": ", b.names)) != std::string::npos);
  }
  CHECK(recipe_words("full+small_gpu+fast") ==
        std::vector<std::string_view>{"full", "zero2", "single", "host_optimizer", "bf16", "selective", "fast"});
  CHECK(error_of([] { choose_recipe("small_gpu+zero3"); }).says("dsx-E102: \"zero2\" and \"zero3\" both choose the sharding"));
}

namespace {

/// A program's own policies, with names of its own.
struct Eager {
  using Slot = ShardingSlot;
  static constexpr Exclusion excludes[]{excluding<GPipe>("gradients leave as they come"),
                                        excluding<OneForwardOneBackward>("one micro-batch at a time")};
  Residency residency(const ParameterInfo&, const Mesh&) const { return {}; }
};
inline constexpr RecipeName own_names[] = {recipe_name<Eager>("eager", "a sharding of one's own"), recipe_name<GPipe>("gpipe", "all forward"),
                                           recipe_name<RecomputeUnits>("again", "units are played again")};

}  // namespace

TEST_CASE("names whose policies exclude each other are refused with the number that their types have") {
  CHECK(error_of([] {
          choose_recipe("gpipe+eager", 1, own_names);
        }).says("dsx-E107: \"eager\" excludes \"gpipe\": gradients leave as they come; drop one of the two"));
  CHECK(error_of([] { choose_recipe("eager+gpipe", 1, own_names); }) == 107);
  CHECK(error_of([] { choose_recipe("eager+again", 1, own_names); }) == 0);
  // The schedule that several stages get when none is named.
  CHECK(error_of([] {
          choose_recipe("eager", 2, own_names);
        }).says("dsx-E107: the sharding of this recipe excludes its pipeline schedule: one micro-batch at a time; drop one of the two"));
  CHECK(choose_recipe("again+eager", 1, own_names).get<ShardingSlot>().tag().id == policy_id<Eager>);
  CHECK(error_of([] { choose_recipe("zero1", 1, own_names); }).says("there are eager, gpipe, again, joined by +"));
}

TEST_CASE("a name that no recipe has, and two of one kind, are refused") {
  const auto unknown = error_of([] { choose_recipe("zero2+faster"); });
  CHECK(unknown == 108);
  CHECK(unknown.says("no recipe is called \"faster\"; there are replicate, zero1,"));
  CHECK(error_of([] { choose_recipe("zero2+"); }) == 0);
  CHECK(error_of([] { choose_recipe("+zero2"); }) == 108);
  CHECK(error_of([] { choose_recipe("zero2+bf16+mics"); }).says("dsx-E102: \"zero2\" and \"mics\" both choose the sharding"));
  CHECK(error_of([] { optimizer_named("adam", 1, 0); }) == 108);
}

TEST_CASE("any optimizer scales the rate that it was made with") {
  AnyOptimizer optimizer = optimizer_named("muon", 0.02, 0.1);
  optimizer.scale_rate(0.5), optimizer.scale_rate(0.25);
  CHECK(optimizer.rate() == doctest::Approx(0.005));
  CHECK(optimizer.states({.role = Role::matrix}).size() == 1);
  CHECK(optimizer.states({.role = Role::table}).size() == 2);
  CHECK(AnyOptimizer{optimizer_named("sgd", 0.1, 0)}.states({}).size() == 1);
}
