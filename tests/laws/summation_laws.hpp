// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of a summation: the same program gives the same bits twice, and one that fixes its grains gives them on every layout.
///
///     laws::summation(Fast{});
#pragma once

#include "identity_laws.hpp"

namespace laws {

template <Summation S>
void summation(const S& policy) {
  const bool fixed = policy.fixed_grains();
  LAW(policy.fixed_grains() == fixed, "another answer the second time");
  LAW(AnySummation{policy}.fixed_grains() == fixed, "AnySummation answers otherwise");
  const AnyRecipe recipe{AnySummation{policy}};
  const Bits one = bits_of(recipe, {}), two = bits_of(recipe, {.data = 2});
  LAW(bits_of(recipe, {}) == one, "other bits the second time, on one rank");
  LAW(bits_of(recipe, {.data = 2}) == two, "other bits the second time, on two ranks");
  if (!fixed) return;
  for (const Extent data : {2, 4})  // four grains each
    LAW(bits_of(recipe, {.data = data}, 4 / data) == bits_of(recipe, {}, 4), "fixed grains, and yet other bits on ", data, " ranks");
}

}  // namespace laws
