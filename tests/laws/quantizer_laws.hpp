// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of a quantizer: it answers the same whenever it is asked, and a site without a codec hands over the bits it was given.
///
///     laws::quantizer<FullPrecision>({});
#pragma once

#include "identity_laws.hpp"

namespace laws {

inline constexpr QuantSite quant_sites[] = {QuantSite::rest, QuantSite::gather, QuantSite::reduction, QuantSite::cache};

template <Quantizer Q>
void quantizer(const Q& policy) {
  bool packs = false;
  for (const QuantSite site : quant_sites)
    for (const Role role : {Role::vector, Role::matrix, Role::table}) {
      const ParameterInfo info{.whole = {4, 4}, .summed_over = Axes::data, .role = role};
      const Codec* codec = policy.codec(site, info);
      LAW(policy.codec(site, info) == codec, "another codec the second time");
      LAW(AnyQuantizer{policy}.codec(site, info) == codec, "AnyQuantizer answers otherwise");
      packs = packs || codec;
    }
  const Degrees degrees{.data = 2};
  if (!packs)
    LAW(bits_of(AnyRecipe{AnyQuantizer{policy}, ZeRO<3>{}}, degrees) == bits_of(AnyRecipe{ZeRO<3>{}}, degrees), "other bits without a codec");
}

}  // namespace laws
