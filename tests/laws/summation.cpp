// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every summation and every exchange of attention keeps the laws of its slot.
#include "summation_laws.hpp"

using namespace dsx;

namespace {

/// The archetypes.
struct AnyOrder {
  using Slot = SummationSlot;
  bool fixed_grains() const { return false; }
};
static_assert(Summation<AnyOrder>);
struct Nearby {
  using Slot = AttentionSlot;
  bool cuts_sequences() const { return false; }
};
static_assert(AttentionExchange<Nearby>);

}  // namespace

TEST_CASE("Fast keeps the laws of summation") { laws::summation(Fast{}); }
TEST_CASE("the archetype of summation keeps its laws") { laws::summation(AnyOrder{}); }
TEST_CASE("LocalAttention and the archetype of exchanges leave sequences whole") {
  CHECK_FALSE(LocalAttention{}.cuts_sequences());
  CHECK(laws::bits_of(Recipe{Nearby{}}, {.data = 2}) == laws::bits_of(Recipe{LocalAttention{}}, {.data = 2}));
}
