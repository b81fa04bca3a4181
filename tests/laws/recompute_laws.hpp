// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The law of a recompute policy: gradients and losses are the same bits as without it, dropout included.
///
///     laws::recompute(RecomputeUnits{});
#pragma once

#include "identity_laws.hpp"

namespace laws {

template <RecomputePolicy P>
void recompute(const P& policy) {
  for (const Degrees& degrees : {Degrees{}, Degrees{.data = 2}, Degrees{.data = 2, .tensor = 2, .token_split = true}}) {
    const Bits with = bits_of(Recipe{policy}, degrees), without = bits_of(AnyRecipe{}, degrees);
    LAW(without.gradients.size() > 0, "a step without gradients");
    LAW(with == without, "other bits than where everything is kept");
  }
}

}  // namespace laws
