// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of a summation: the same program gives the same bits twice, and one that fixes its grains gives them on every layout.
///
///     laws::summation(Fast{});
#pragma once

#include "identity_laws.hpp"

#include <doctest/doctest.h>

namespace laws {

template <Summation S>
void summation(const S& policy) {
  CHECK(policy.fixed_grains() == policy.fixed_grains());
  const Bits one = bits_of(Recipe{policy}, {}), two = bits_of(Recipe{policy}, {.data = 2});
  CHECK(bits_of(Recipe{policy}, {}) == one);
  CHECK(bits_of(Recipe{policy}, {.data = 2}) == two);
  if (policy.fixed_grains()) CHECK(one == two);
}

}  // namespace laws
