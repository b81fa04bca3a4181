// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every quantizer keeps the laws of its slot, and the laws catch what breaks them.
#include "quantizer_laws.hpp"

#include <dsx/quant/quantize.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

/// The archetype.
struct Unpacked {
  using Slot = QuantizerSlot;
  const Codec* codec(QuantSite, const ParameterInfo&) const { return nullptr; }
};
static_assert(Quantizer<Unpacked>);

/// A user's: matrices only, and gradients with feedback.
struct Matrices {
  using Slot = QuantizerSlot;
  const Codec* codec(QuantSite site, const ParameterInfo& info) const {
    return site == QuantSite::reduction && info.role == Role::matrix ? &block_int8<32> : nullptr;
  }
  bool feedback(const ParameterInfo& info) const { return info.role == Role::matrix; }
};

/// They break the laws: one packs every second time it is asked, the others give what no kernel packs by blocks, or pack at rest.
struct Sometimes {
  mutable int asked = 0;
  const Codec* codec(QuantSite, const ParameterInfo&) const { return ++asked % 2 ? nullptr : &block_int8<64>; }
};
struct Moody : Unpacked {
  mutable int asked = 0;
  bool feedback(const ParameterInfo&) const { return ++asked % 2 == 0; }
};
struct Gives {
  QuantSite where;
  const Codec* what;
  const Codec* codec(QuantSite site, const ParameterInfo&) const { return site == where ? what : nullptr; }
};
constexpr Codec two_bits{2, 64};

std::string broken_by(const auto& policy) {
  return laws::broken([&] { laws::quantizer(policy); });
}

}  // namespace

TEST_CASE("FullPrecision and AnyQuantizer keep the laws of quantizers and pack nothing") {
  laws::quantizer(FullPrecision{});
  laws::quantizer(AnyQuantizer{});
  for (const QuantSite site : laws::quant_sites) CHECK(FullPrecision{}.codec(site, {}) == nullptr);
}
TEST_CASE("the archetype of quantizers keeps their laws") { laws::quantizer(Unpacked{}); }
TEST_CASE("Quantize keeps the laws of quantizers at every site that is served") {
  using enum QuantSite;
  laws::quantizer(Quantize<At<BlockInt8<64>, gather>>{});
  laws::quantizer(Quantize<At<BlockInt4<32, Codes::asymmetric>, reduction>>{});
  laws::quantizer(Quantize<At<BlockInt4<64>, reduction>>{.error_feedback = true});
  laws::quantizer(Quantize<At<BlockInt8<64, Codes::asymmetric>, state>>{});
  laws::quantizer(AnyQuantizer{Quantize<At<BlockInt8<16>, gather, state>, At<BlockInt4<64>, reduction>>{.error_feedback = true}});
  laws::quantizer(Matrices{});
}
TEST_CASE("of several formats at one site the first holds, and sites that none names are left alone") {
  constexpr Quantize<At<BlockInt8<16>, QuantSite::gather>, At<BlockInt4<64>, QuantSite::gather, QuantSite::state>> both{};
  CHECK(both.codec(QuantSite::gather, {}) == &block_int8<16>);
  CHECK(both.codec(QuantSite::state, {}) == &block_int4<64>);
  CHECK(both.codec(QuantSite::reduction, {}) == nullptr);
}
TEST_CASE("the laws of quantizers catch what breaks them") {
  CHECK(broken_by(Sometimes{}) == "another answer the second time");
  CHECK(broken_by(Moody{}) == "another answer the second time");
  CHECK(broken_by(Gives{QuantSite::gather, &two_bits}) == "a codec that gather can't serve: int2 by 64");
  CHECK(broken_by(Gives{QuantSite::reduction, &one_bit}) == "a codec that reduction can't serve: 1 bit");
  CHECK(broken_by(Gives{QuantSite::rest, &block_int8<64>}) == "a codec that rest can't serve: int8 by 64");
  CHECK(AnyQuantizer{Gives{QuantSite::reduction, &block_int8<64>}}.codec(QuantSite::reduction, {}) == &block_int8<64>);
  CHECK(AnyQuantizer{Gives{QuantSite::reduction, &block_int8<64>}}.codec(QuantSite::gather, {}) == nullptr);
}
