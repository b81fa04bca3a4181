// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of an offload policy: it answers the same whenever it is asked, and where something rests never changes the bits that come back.
///
///     laws::offload(Resident{});
#pragma once

#include "identity_laws.hpp"

namespace laws {

template <OffloadPolicy P>
void offload(const P& policy) {
  for (const Kind kind : {Kind::weights, Kind::gradients, Kind::state, Kind::activations})
    for (const Role role : {Role::vector, Role::matrix, Role::table}) {
      const ParameterInfo info{.path = "a.b", .whole = {4, 4}, .summed_over = Axes::data, .role = role};
      const Tier tier = policy.rests(kind, info);
      LAW(policy.rests(kind, info) == tier, "another tier the second time");
      LAW(AnyOffload{policy}.rests(kind, info) == tier, "AnyOffload answers otherwise");
    }
  const Degrees degrees{.data = 2};
  LAW(bits_of(AnyRecipe{AnyOffload{policy}}, degrees) == bits_of(AnyRecipe{}, degrees), "other bits than where everything rests on the device");
}

}  // namespace laws
