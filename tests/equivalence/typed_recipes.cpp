// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Recipes whose policies are types: each policy once, with the bits of the same policies chosen at run time.
// labels: traj
#include "support/runs.hpp"

#include <doctest/doctest.h>

using namespace toy;

namespace {

template <class Recipe>
void equals_chosen(const Cell& c, const Recipe& recipe) {
  const Run typed = train(c, recipe), chosen = train(c), one = train({.rule = c.rule, .elements = c.elements});
  CHECK_MESSAGE(typed.complaints.empty(), name_of(c) << text_of(typed.complaints));
  CHECK_MESSAGE(same(typed, chosen), name_of(c));
  if (c.elements.value == Element::f64) CHECK_MESSAGE(distance(typed, one) <= 1e-12, name_of(c));
}

}  // namespace

TEST_CASE("Replicate, SingleStage and every other identity as types") {
  equals_chosen({Sharding::replicate, {.data = 2, .tensor = 2}, Schedule::single, 2},
                Recipe{Replicate{}, SingleStage{}, Resident{}, FullPrecision{}, KeepActivations{}, Fast{}, LocalAttention{}, Fp64{}});
}
TEST_CASE("ZeRO-1 and GPipe as types, in another order") {
  equals_chosen({Sharding::zero_1, {.data = 2, .pipe = 2}, Schedule::gpipe, 2, false, Rule::adamw}, Recipe{Fp64{}, GPipe{}, ZeRO<1>{}});
}
TEST_CASE("ZeRO-2 and RecomputeUnits as types") {
  equals_chosen({Sharding::zero_2, {.data = 2, .tensor = 2, .token_split = true}, Schedule::single, 2, true},
                Recipe{ZeRO<2>{}, RecomputeUnits{}, Fp64{}});
}
TEST_CASE("ZeRO-3 and 1F1B as types") {
  equals_chosen(
      {Sharding::zero_3, {.data = 2, .tensor = 2, .pipe = 2, .token_split = true}, Schedule::one_forward_one_backward, 2, false, Rule::adamw},
      Recipe{ZeRO<3>{}, OneForwardOneBackward{}, Fp64{}});
}
TEST_CASE("MiCS and Fp32 as types") {
  equals_chosen({Sharding::mics, {.data = 4, .inner = 2}, Schedule::single, 2, false, Rule::adamw, {}}, Recipe{MiCS{}, Fp32{}});
}
TEST_CASE("hpZ and Bf16 as types") {
  equals_chosen({Sharding::hpz, {.data = 4, .inner = 2}, Schedule::single, 2, false, Rule::adamw, Bf16{}.elements()}, Recipe{Bf16{}, HpZ{}});
}
