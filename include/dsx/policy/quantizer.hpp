// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides how the weights or gradients of a class are packed at a site: at rest, when gathered, when reduced, in a cache.
///
///     Recipe{FullPrecision{}}    // the identity: nothing is packed
///
/// Laws (tests/laws/quantizer_laws.hpp): it answers the same whenever it is asked, and a site without a codec hands over the bits
/// it was given.
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

/// Any quantizer, chosen at run time.
class AnyQuantizer : public AnyPolicy {
 public:
  using Slot = QuantizerSlot;
  AnyQuantizer() : AnyQuantizer{FullPrecision{}} {}
  template <Quantizer P>
    requires(!std::same_as<P, AnyQuantizer>)
  AnyQuantizer(P policy) : AnyPolicy{tag_of<P, Slot>()}, codec_{[policy](QuantSite s, const ParameterInfo& i) { return policy.codec(s, i); }} {}
  const Codec* codec(QuantSite site, const ParameterInfo& info) const { return codec_(site, info); }

 private:
  std::function<const Codec*(QuantSite, const ParameterInfo&)> codec_;
};
static_assert(Quantizer<FullPrecision> && Quantizer<AnyQuantizer>);

}  // namespace dsx

// dsx-policy: quantizer full FullPrecision{}
