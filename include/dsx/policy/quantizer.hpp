// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides how the weights or gradients of a class are packed at a site: at rest, when gathered, when reduced, in a cache.
///
///     Recipe{FullPrecision{}}    // the identity: nothing is packed
///
/// Law (tests/laws/quantizer_laws.hpp): a site without a codec hands over the bits it was given.
#pragma once

#include <dsx/policy/sharding.hpp>

namespace dsx {

enum class QuantSite : std::uint8_t { rest, gather, reduction, cache };

struct QuantizerSlot {
  static constexpr const char* name = "quantizer";
};
template <class Q>
concept Quantizer = requires(const Q& q, QuantSite site, const ParameterInfo& info) {
  { q.codec(site, info) } -> std::same_as<const Codec*>;
};

/// The identity.
struct FullPrecision {
  using Slot = QuantizerSlot;
  constexpr const Codec* codec(QuantSite, const ParameterInfo&) const { return nullptr; }
};
static_assert(Quantizer<FullPrecision>);

}  // namespace dsx
