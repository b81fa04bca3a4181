// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include <dsx/core/element.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

using namespace dsx;

namespace {

/// A bfloat16 by its definition: sign, eight bits of exponent, seven of fraction. The pattern behind the largest number counts as 2^128.
double value_of(std::uint16_t bits) {
  const int exponent = bits >> 7 & 0xFF, fraction = bits & 0x7F;
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -133) : std::ldexp(128 + fraction, exponent - 134);
  return bits & 0x8000 ? -magnitude : magnitude;
}
/// The nearer of the two neighbours; of two equally near ones the even.
std::uint16_t nearest(float x) {
  const auto towards_zero = std::uint16_t(std::bit_cast<std::uint32_t>(x) >> 16);
  const auto away = std::uint16_t(towards_zero + 1);
  const double below = std::abs(double(x) - value_of(towards_zero)), above = std::abs(value_of(away) - double(x));
  if (below == above) return towards_zero & 1 ? away : towards_zero;
  return below < above ? towards_zero : away;
}

}  // namespace

TEST_CASE("every bfloat16 becomes a float and comes back") {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    bf16 x;
    x.bits = std::uint16_t(bits);
    const float wide = x;
    if (std::isnan(wide)) {
      if (const bool is_one = (bits & 0x7F80) == 0x7F80 && (bits & 0x7F) != 0, stays = std::isnan(float(bf16{wide})); !is_one || !stays)
        FAIL_CHECK("NaN ", bits);
    } else if (const bool finite = std::isfinite(wide); bf16{wide}.bits != bits || (finite && double(wide) != value_of(std::uint16_t(bits)))) {
      FAIL_CHECK("bits ", bits, " became ", wide);
    }
  }
}

TEST_CASE("a float becomes the nearest bfloat16, ties to even") {
  // What is rounded away matters by its relation to a half alone: with these lower halves every float is decided.
  std::vector<unsigned> lower{0, 1, 2, 0x1234, 0x4000, 0x7FFE, 0x7FFF, 0x8000, 0x8001, 0x8002, 0xC000, 0xEDCB, 0xFFFE, 0xFFFF};
  Extent compared = 0;
  for (unsigned upper = 0; upper < 0x10000; ++upper)
    for (const unsigned low : lower) {
      const float x = std::bit_cast<float>(upper << 16 | low);
      if (std::isinf(x)) {
        if (bf16{x}.bits != upper) FAIL_CHECK("infinity became ", bf16{x}.bits);
      } else if (std::isnan(x)) {
        if (!std::isnan(float(bf16{x}))) FAIL_CHECK("NaN ", std::bit_cast<std::uint32_t>(x), " became ", float(bf16{x}));
      } else {
        if (bf16{x}.bits != nearest(x)) FAIL_CHECK(x, " became ", bf16{x}.bits, ", the nearest is ", nearest(x));
        ++compared;
      }
    }
  CHECK(compared == Extent(2 * 0x7F80) * lower.size());
  CHECK(float(bf16{std::numeric_limits<float>::max()}) == std::numeric_limits<float>::infinity());
}

TEST_CASE("elements know their bytes, names and wide forms") {
  CHECK(bytes_of(Element::bf16) == 2);
  CHECK(bytes_of(Element::f64) == 8);
  CHECK(bytes_of(Element::boolean) == 1);
  CHECK(name_of(Element::bf16) == "bf16");
  CHECK(name_of(Element::boolean) == "boolean");
  CHECK(wide(Element::bf16) == Element::f32);
  CHECK(wide(Element::f64) == Element::f64);
  CHECK(element_of<bf16> == Element::bf16);
  CHECK(element_of<std::int64_t> == Element::i64);
  for (const Element e : {Element::f32, Element::f64, Element::bf16}) {
    const Extent bytes = dispatch(e, [](auto zero) { return sizeof zero; });
    CHECK(bytes == bytes_of(e));
  }
}

TEST_CASE("no kernel computes with indices: dsx-E405") {
  CHECK_THROWS_WITH_AS(dispatch(Element::i64, [](auto) {}), "dsx-E405: no kernel computes with i64 elements; f32, f64 and bf16 are known", Error);
}
