// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every quantizer keeps the laws of its slot.
#include "quantizer_laws.hpp"

using namespace dsx;

namespace {

/// The archetype.
struct Unpacked {
  using Slot = QuantizerSlot;
  const Codec* codec(QuantSite, const ParameterInfo&) const { return nullptr; }
};
static_assert(Quantizer<Unpacked>);

}  // namespace

TEST_CASE("FullPrecision keeps the laws of quantizers and packs nothing") {
  laws::quantizer(FullPrecision{});
  for (const QuantSite site : laws::quant_sites) CHECK(FullPrecision{}.codec(site, {}) == nullptr);
}
TEST_CASE("the archetype of quantizers keeps their laws") { laws::quantizer(Unpacked{}); }
