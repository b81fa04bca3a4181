// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every exchange of attention keeps the laws of its slot, and the laws catch what breaks them.
#include "attention_exchange_laws.hpp"

#include <doctest/doctest.h>

using namespace dsx;

namespace {

/// The archetype.
struct Nearby {
  bool cuts_sequences() const { return false; }
};
static_assert(AttentionExchange<Nearby>);

/// Breaks the laws: answers in turn, and claims to cut what nobody puts together again.
struct Fickle {
  mutable int asked = 0;
  bool cuts_sequences() const { return ++asked % 2 == 0; }
};
struct Cutter {
  bool cuts_sequences() const { return true; }
};

}  // namespace

TEST_CASE("LocalAttention, AnyAttention and the archetype keep the laws of exchanges") {
  CHECK_FALSE(LocalAttention{}.cuts_sequences());
  laws::attention_exchange(LocalAttention{});
  laws::attention_exchange(AnyAttention{});
  laws::attention_exchange(Nearby{});
}
TEST_CASE("the laws of exchanges catch what breaks them") {
  CHECK(laws::broken([] { laws::attention_exchange(Fickle{}); }) == "another answer the second time");
  CHECK(laws::broken([] { laws::attention_exchange(Cutter{}); }).find("dsx-E109") == 0);
  CHECK(AnyAttention{Cutter{}}.cuts_sequences());
}
