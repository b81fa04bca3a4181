// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Operations that are played again by class beside every other policy: the bits of runs that keep, and the bytes of their plans.
// labels: traj bytes wire
#include "support/covering.hpp"
#include "support/runs.hpp"

#include <doctest/doctest.h>

using namespace toy;

namespace {

AnyRecipe with(const Cell& c, const AnyRecompute& recompute) {
  const AnyRecipe recipe = recipe_of(c);
  return {recipe.get<ShardingSlot>(), recipe.get<ScheduleSlot>(), recipe.get<PrecisionSlot>(), recompute};
}

}  // namespace

TEST_CASE("what is played again by class gives the bits of what is kept, in a covering array of all pairs") {
  using enum OperationClass;
  constexpr OperationClass classes[] = {norms | elementwise, norms, elementwise, norms | elementwise | sums};
  const Elements elements[] = {Fp64{}.elements(), Fp32{}.elements(), Bf16{}.elements()};
  const auto cell_of = [&](const std::vector<Extent>& row) {
    const Extent data = Extent(1) << row[1], tensor = row[2] == 0 ? 1 : 2;
    return Cell{Sharding(row[0]),
                {.data = data, .inner = data == 4 ? 2 : data, .tensor = tensor, .pipe = row[3] == 0 ? 1UL : 2UL, .token_split = row[2] == 2},
                Schedule(row[3]),
                1 + row[4],
                false,
                Rule(row[5]),
                elements[row[6]]};
  };
  const Covering rows = covering_array({6, 3, 3, 4, 2, 3, 3, 4}, [&](std::vector<Extent> row) {
    std::replace(row.begin(), row.end(), unset, Extent{0});
    return cell_of(row).ranks() <= 8;
  });
  MESSAGE(rows.pairs.size() << " pairs in " << rows.rows.size() << " cells");
  for (const auto& row : rows.rows) {
    const Cell c = cell_of(row);
    INFO(name_of(c), ", classes ", int(classes[row[7]]));
    const Run kept = train(c, with(c, KeepActivations{}), 4), again = train(c, with(c, RecomputeOperations{classes[row[7]]}), 4);
    CHECK_MESSAGE(kept.complaints.empty(), text_of(kept.complaints));
    CHECK_MESSAGE(again.complaints.empty(), text_of(again.complaints));
    CHECK(same(again, kept));
  }
}
