// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides how the weights, gradients or optimizer state of a class are packed at a site.
///
///     Recipe{FullPrecision{}}    // the identity: nothing is packed
///
/// A quantizer may also say whether what a reduction's packing lost is added to the next gradient (error feedback):
/// `bool feedback(const ParameterInfo&) const`.
///
/// Laws (tests/laws/quantizer_laws.hpp): it answers the same whenever it is asked, and a site without a codec hands over the bits
/// it was given.
#pragma once

#include <dsx/policy/sharding.hpp>

namespace dsx {

/// `rest`: weights between uses; `gather`: weights on their way to the whole; `reduction`: gradients on their way to a sum;
/// `state`: the optimizer's, between updates; `cache`: keys and values.
enum class QuantSite : std::uint8_t { rest, gather, reduction, state, cache };
constexpr std::string_view name_of(QuantSite s) {
  constexpr std::string_view names[] = {"rest", "gather", "reduction", "state", "cache"};
  return names[std::size_t(s)];
}

struct QuantizerSlot {
  static constexpr const char* name = "quantizer";
};
template <class Q>
concept Quantizer = requires(const Q& q, QuantSite site, const ParameterInfo& info) {
  { q.codec(site, info) } -> std::same_as<const Codec*>;
};

/// Whether a rank adds to its next gradient what packing the last one lost.
template <Quantizer Q>
bool feedback_of(const Q& q, const ParameterInfo& info) {
  if constexpr (requires {
                  { q.feedback(info) } -> std::same_as<bool>;
                })
    return q.feedback(info);
  else
    return false;
}

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
  AnyQuantizer(P policy)
      : AnyPolicy{tag_of<P, Slot>()},
        codec_{[policy](QuantSite s, const ParameterInfo& i) { return policy.codec(s, i); }},
        feedback_{[policy](const ParameterInfo& i) { return feedback_of(policy, i); }} {}
  const Codec* codec(QuantSite site, const ParameterInfo& info) const { return codec_(site, info); }
  bool feedback(const ParameterInfo& info) const { return feedback_(info); }

 private:
  std::function<const Codec*(QuantSite, const ParameterInfo&)> codec_;
  std::function<bool(const ParameterInfo&)> feedback_;
};
static_assert(Quantizer<FullPrecision> && Quantizer<AnyQuantizer>);

}  // namespace dsx

// dsx-policy: quantizer full FullPrecision{}
