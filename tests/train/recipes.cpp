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
  const RecipeChoice choice = choose_recipe("zero3+bf16+recompute+gpipe");
  CHECK(choice.sharding.residency(info, mesh) == ZeRO<3>{}.residency(info, mesh));
  CHECK(choice.precision.elements() == Bf16{}.elements());
  CHECK(choice.recompute.units);
  CHECK(choice.schedule.program(0, 2, 4).live() == 4);
  CHECK(choose_recipe("").sharding.residency(info, mesh) == Residency{});
  CHECK(choose_recipe("zero1", 2).schedule.program(0, 2, 4).live() == 2);  // several stages without a schedule: 1F1B
  for (const RecipeName& r : recipe_names) {
    CHECK(list_of_recipes().find(std::string{"\n  "} + std::string{r.name} + " ") != std::string::npos);
    CHECK(error_of([&] { choose_recipe(r.name); }) == 0);
  }
}

TEST_CASE("a name that no recipe has, and two of one kind, are refused") {
  const auto unknown = error_of([] { choose_recipe("zero2+fast"); });
  CHECK(unknown == 108);
  CHECK(unknown.says("no recipe is called \"fast\"; there are replicate, zero1,"));
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
