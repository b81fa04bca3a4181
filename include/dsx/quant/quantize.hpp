// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Quantizers that pack by blocks, each format at the sites that are named.
///
///     Recipe{ZeRO<3>{}, Quantize<At<BlockInt8<256>, QuantSite::gather>>{}}                             // qwZ of ZeRO++
///     Recipe{ZeRO<3>{}, Quantize<At<BlockInt4<32>, QuantSite::reduction>>{.error_feedback = true}}     // qgZ
///     Recipe{Quantize<At<BlockInt8<256>, QuantSite::state>>{}}                                         // AdamW in 8 bits
#pragma once

#include <dsx/codec/codec.hpp>
#include <dsx/policy/quantizer.hpp>

namespace dsx {

/// A byte a value; `Block` values share a scale of 4 bytes, and a minimum where codes are asymmetric.
template <Extent Block, Codes Kind = Codes::symmetric>
struct BlockInt8 {
  static constexpr const Codec& codec = block_int8<Block, Kind>;
};
/// Two values a byte.
template <Extent Block, Codes Kind = Codes::symmetric>
struct BlockInt4 {
  static constexpr const Codec& codec = block_int4<Block, Kind>;
};

template <class Format, QuantSite... Sites>
struct At {
  static constexpr const Codec* codec(QuantSite site) { return ((site == Sites) || ...) ? &Format::codec : nullptr; }
};

/// Of several formats at one site the first holds.
template <class... Formats>
struct Quantize {
  using Slot = QuantizerSlot;
  bool error_feedback = false;  // of reductions: what packing lost is added to the next gradient (Seide et al. 2014)

  constexpr const Codec* codec(QuantSite site, const ParameterInfo&) const {
    const Codec* found = nullptr;
    ((found = found ? found : Formats::codec(site)), ...);
    return found;
  }
  constexpr bool feedback(const ParameterInfo&) const { return error_feedback; }
};
static_assert(Quantizer<Quantize<At<BlockInt8<64>, QuantSite::gather>>>);

}  // namespace dsx

// dsx-policy: quantizer qwz Quantize<At<BlockInt8<64>, QuantSite::gather>>{}
// dsx-policy: quantizer qgz Quantize<At<BlockInt8<64>, QuantSite::reduction>>{}
// dsx-policy: quantizer qgz_int4 Quantize<At<BlockInt4<64>, QuantSite::reduction>>{.error_feedback = true}
// dsx-policy: quantizer zeropp Quantize<At<BlockInt8<64>, QuantSite::gather>, At<BlockInt4<64>, QuantSite::reduction>>{.error_feedback = true}
// dsx-policy: quantizer adam8bit Quantize<At<BlockInt8<64>, QuantSite::state>>{}
