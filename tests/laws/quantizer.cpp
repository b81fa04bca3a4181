// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every quantizer keeps the laws of its slot, and the laws catch what breaks them.
#include "quantizer_laws.hpp"

using namespace dsx;

namespace {

/// The archetype.
struct Unpacked {
  using Slot = QuantizerSlot;
  const Codec* codec(QuantSite, const ParameterInfo&) const { return nullptr; }
};
static_assert(Quantizer<Unpacked>);

/// Where no codec is looked into, any address is one.
const int something = 0;
const Codec* some_codec() { return static_cast<const Codec*>(static_cast<const void*>(&something)); }

/// Breaks the laws: packs every second time it is asked.
struct Sometimes {
  mutable int asked = 0;
  const Codec* codec(QuantSite, const ParameterInfo&) const { return ++asked % 2 ? nullptr : some_codec(); }
};
struct AtReduction {
  const Codec* codec(QuantSite site, const ParameterInfo&) const { return site == QuantSite::reduction ? some_codec() : nullptr; }
};

}  // namespace

TEST_CASE("FullPrecision and AnyQuantizer keep the laws of quantizers and pack nothing") {
  laws::quantizer(FullPrecision{});
  laws::quantizer(AnyQuantizer{});
  for (const QuantSite site : laws::quant_sites) CHECK(FullPrecision{}.codec(site, {}) == nullptr);
}
TEST_CASE("the archetype of quantizers keeps their laws") { laws::quantizer(Unpacked{}); }
TEST_CASE("the laws of quantizers catch what breaks them") {
  CHECK(laws::broken([] { laws::quantizer(Sometimes{}); }) == "another codec the second time");
  CHECK(AnyQuantizer{AtReduction{}}.codec(QuantSite::reduction, {}) == some_codec());
  CHECK(AnyQuantizer{AtReduction{}}.codec(QuantSite::gather, {}) == nullptr);
}
