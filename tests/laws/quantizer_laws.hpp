// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of a quantizer: it answers the same whenever it is asked, and a site without a codec hands over the bits it was given.
///
///     laws::quantizer<FullPrecision>({});
#pragma once

#include "identity_laws.hpp"

#include <doctest/doctest.h>

namespace laws {

inline constexpr QuantSite quant_sites[] = {QuantSite::rest, QuantSite::gather, QuantSite::reduction, QuantSite::cache};

template <Quantizer Q>
void quantizer(const Q& policy) {
  bool packs = false;
  for (const QuantSite site : quant_sites)
    for (const Role role : {Role::vector, Role::matrix, Role::table}) {
      const ParameterInfo info{.whole = {4, 4}, .summed_over = Axes::data, .role = role};
      CHECK(policy.codec(site, info) == policy.codec(site, info));
      packs = packs || policy.codec(site, info) != nullptr;
    }
  const Degrees degrees{.data = 2};
  if (!packs) CHECK(bits_of(Recipe{policy, ZeRO<3>{}}, degrees) == bits_of(Recipe{ZeRO<3>{}}, degrees));
}

}  // namespace laws
