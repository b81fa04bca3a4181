// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every summation keeps the laws of its slot, and the laws catch what breaks them.
#include "summation_laws.hpp"

#include <doctest/doctest.h>

using namespace dsx;

namespace {

/// The archetype.
struct AnyOrder {
  using Slot = SummationSlot;
  bool fixed_grains() const { return false; }
};
static_assert(Summation<AnyOrder>);

/// Break the laws: one answers in turn, the other says so three times, to whoever asks what it is, and then doesn't sum by grains.
struct Fickle {
  mutable int asked = 0;
  bool fixed_grains() const { return ++asked % 2 == 0; }
};
struct Boaster {
  std::shared_ptr<int> asked = std::make_shared<int>(0);
  bool fixed_grains() const { return ++*asked <= 3; }
};

}  // namespace

TEST_CASE("Fast keeps the laws of summation") { laws::summation(Fast{}); }
TEST_CASE("Reproducible keeps the laws of summation") { laws::summation(Reproducible{}); }
TEST_CASE("the archetype of summation keeps its laws") { laws::summation(AnyOrder{}); }
TEST_CASE("AnySummation keeps the laws of summation") { laws::summation(AnySummation{}); }
TEST_CASE("the laws of summation catch what breaks them") {
  CHECK(laws::broken([] { laws::summation(Fickle{}); }) == "another answer the second time");
  CHECK(laws::broken([] { laws::summation(Boaster{}); }) == "fixed grains, and yet other bits on 2 ranks");
  CHECK(AnySummation{Reproducible{}}.fixed_grains());
}
