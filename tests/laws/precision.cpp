// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every precision keeps the laws of its slot, and the laws catch what breaks them.
#include "precision_laws.hpp"

#include <dsx/precision/bf16.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

/// The archetype.
struct Same {
  Elements elements() const { return {Element::bf16, Element::bf16, Element::bf16}; }
};
static_assert(PrecisionPolicy<Same>);

/// Breaks the laws, each in its way.
struct Given {
  Elements given;
  Elements elements() const { return given; }
};
struct Drifting {
  mutable int asked = 0;
  Elements elements() const { return ++asked == 1 ? Elements{} : Elements{Element::bf16}; }
};

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
TEST_CASE("the laws of precision catch what breaks them") {
  const auto broken_by = [](Elements e) { return laws::broken([e] { laws::precision(Given{e}); }); };
  CHECK(broken_by({Element::f32, Element::f32, Element::bf16}) == "a master of bf16 is narrower than weights of f32");
  CHECK(broken_by({Element::f32, Element::bf16, Element::f32}) == "gradients of bf16 beside values of f32");
  CHECK(broken_by({Element::bf16, Element::bf16, Element::f64}) == "a master of f64 beside values of bf16");
  CHECK(broken_by({Element::f16, Element::f32, Element::f32}).find("dsx-E405") == 0);
  CHECK(laws::broken([] { laws::precision(Drifting{}); }) == "other elements the second time");
}
