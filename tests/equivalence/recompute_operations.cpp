// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Operations that are played again by class beside every other policy: the bits of runs that keep, and the bytes of their plans.
// labels: traj bytes wire
#include "support/runs.hpp"

#include <doctest/doctest.h>

using namespace toy;

namespace {

AnyRecipe with(const Cell& c, const AnyRecompute& recompute) {
  const AnyRecipe recipe = recipe_of(c);
  return {recipe.get<ShardingSlot>(), recipe.get<ScheduleSlot>(), recipe.get<PrecisionSlot>(), recompute};
}

}  // namespace

TEST_CASE("what is played again by class gives the bits of what is kept, in every layout, in double and in bf16") {
  using enum OperationClass;
  const Cell cells[] = {
      {.micro_batches = 2, .rule = Rule::adamw},
      {Sharding::zero_3, {.data = 2}, Schedule::single, 2},
      {Sharding::zero_1, {.tensor = 2}, Schedule::single, 2, false, Rule::muon},
      {Sharding::zero_2, {.data = 2, .tensor = 2, .token_split = true}, Schedule::single, 1, false, Rule::adamw},
      {Sharding::replicate, {.tensor = 2, .pipe = 2, .token_split = true}, Schedule::gpipe, 2},
      {Sharding::zero_3, {.data = 2, .pipe = 2}, Schedule::one_forward_one_backward, 2, false, Rule::adamw},
      {Sharding::zero_1, {.pipe = 2}, Schedule::interleaved, 2},
      {Sharding::hpz, {.data = 4, .inner = 2}, Schedule::single, 2, false, Rule::adamw},
      {Sharding::mics, {.data = 4, .inner = 2, .tensor = 2}, Schedule::single, 1},
  };
  for (Cell c : cells)
    for (const Elements elements : {Fp64{}.elements(), Bf16{}.elements()}) {
      c.elements = elements;
      INFO(name_of(c));
      const Run kept = train(c, with(c, KeepActivations{}), 4);
      CHECK_MESSAGE(kept.complaints.empty(), text_of(kept.complaints));
      for (const OperationClass classes : {norms | elementwise, norms | elementwise | sums}) {
        INFO("classes ", int(classes));
        const Run again = train(c, with(c, RecomputeOperations{classes}), 4);
        CHECK_MESSAGE(again.complaints.empty(), text_of(again.complaints));
        CHECK(same(again, kept));
      }
    }
}
