// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every precision keeps the laws of its slot.
#include "precision_laws.hpp"

#include <dsx/precision/bf16.hpp>

using namespace dsx;

namespace {

/// The archetype.
struct Same {
  Elements elements() const { return {Element::bf16, Element::bf16, Element::bf16}; }
};
static_assert(PrecisionPolicy<Same>);

}  // namespace

TEST_CASE("Fp32 keeps the laws of precision") { laws::precision(Fp32{}); }
TEST_CASE("Fp64 keeps the laws of precision") { laws::precision(Fp64{}); }
TEST_CASE("Bf16 keeps the laws of precision, whatever its fields") {
  laws::precision(Bf16{});
  laws::precision(Bf16{.gradient = Element::bf16});
  laws::precision(Bf16{.master = Element::bf16, .gradient = Element::bf16});
}
TEST_CASE("the archetype of precision and AnyPrecision keep its laws") {
  laws::precision(Same{});
  laws::precision(AnyPrecision{});
  laws::precision(AnyPrecision{Bf16{}});
}
