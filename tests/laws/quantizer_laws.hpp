// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of a quantizer: it answers the same whenever it is asked; a codec that it gives is one that kernels pack by blocks, at a site that
/// is served; all ranks go the same way with it, twice the same; a site without a codec hands over the bits it was given.
///
///     laws::quantizer<FullPrecision>({});
#pragma once

#include "identity_laws.hpp"

namespace laws {

inline constexpr QuantSite quant_sites[] = {QuantSite::rest, QuantSite::gather, QuantSite::reduction, QuantSite::state, QuantSite::cache};
constexpr bool serves(QuantSite site) { return site != QuantSite::rest && site != QuantSite::cache; }

template <Quantizer Q>
void quantizer(const Q& policy) {
  bool packs = false, sound = true;
  for (const QuantSite site : quant_sites)
    for (const Role role : {Role::vector, Role::matrix, Role::table}) {
      const ParameterInfo info{.whole = {4, 4}, .summed_over = Axes::data, .role = role};
      const Codec* codec = policy.codec(site, info);
      const bool same = policy.codec(site, info) == codec && feedback_of(policy, info) == feedback_of(policy, info);
      LAW(same, "another answer the second time");
      if (!same) return;
      LAW(AnyQuantizer{policy}.codec(site, info) == codec, "AnyQuantizer gives another codec");
      LAW(AnyQuantizer{policy}.feedback(info) == feedback_of(policy, info), "AnyQuantizer answers otherwise whether there is feedback");
      if (!codec) continue;
      packs = true;
      const bool known = serves(site) && codec->known() && codec->block > 0;
      LAW(known, "a codec that ", name_of(site), " can't serve: ", codec->name());
      sound = sound && known;
    }
  if (!sound) return;
  const Degrees degrees{.data = 4, .inner = 2};
  const Bits exact = bits_of(AnyRecipe{ZeRO<3>{}}, degrees), bits = bits_of(AnyRecipe{AnyQuantizer{policy}, ZeRO<3>{}}, degrees);
  if (!packs) {
    LAW(bits == exact, "other bits without a codec");
    return;
  }
  LAW(bits_of(AnyRecipe{AnyQuantizer{policy}, ZeRO<3>{}}, degrees) == bits, "other bits the second time");
  for (std::size_t i = 0; i < bits.losses.size(); ++i)
    LAW(std::abs(bits.losses[i] / exact.losses[i] - 1) < 0.05, "a loss of ", bits.losses[i], " where nothing packed gives ", exact.losses[i]);
}

}  // namespace laws
