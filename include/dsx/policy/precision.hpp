// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides in which element type values, weights, gradients and master weights are kept.
///
///     Recipe{Bf16{}}      // bf16 values and weights, f32 master weights
///
/// Laws (tests/laws/precision_laws.hpp): the master is at least as wide as the weight, and every answer is an element
/// that kernels compute with.
#pragma once

#include <dsx/core/element.hpp>
#include <dsx/policy/exclusion.hpp>

#include <concepts>

namespace dsx {

struct Elements {
  Element value = Element::f32;     // values of a pass and the weights they meet
  Element gradient = Element::f32;  // of weights, as summed over micro-batches and ranks
  Element master = Element::f32;    // what the optimizer updates, with its state
  friend constexpr bool operator==(const Elements&, const Elements&) = default;
};

struct PrecisionSlot {
  static constexpr const char* name = "precision";
};
template <class P>
concept PrecisionPolicy = requires(const P& p) {
  { p.elements() } -> std::same_as<Elements>;
};

/// The identity.
struct Fp32 {
  using Slot = PrecisionSlot;
  constexpr Elements elements() const { return {}; }
};

/// Everything in double: for proofs, since rounding then hides nothing.
struct Fp64 {
  using Slot = PrecisionSlot;
  constexpr Elements elements() const { return {Element::f64, Element::f64, Element::f64}; }
};

/// Any precision, chosen at run time.
class AnyPrecision : public AnyPolicy {
 public:
  using Slot = PrecisionSlot;
  AnyPrecision() : AnyPrecision{Fp32{}} {}
  template <PrecisionPolicy P>
    requires(!std::same_as<P, AnyPrecision>)
  AnyPrecision(P policy) : AnyPolicy{tag_of<P, Slot>()}, elements_{policy.elements()} {}
  Elements elements() const { return elements_; }

 private:
  Elements elements_;
};
static_assert(PrecisionPolicy<Fp32> && PrecisionPolicy<Fp64> && PrecisionPolicy<AnyPrecision>);

}  // namespace dsx

// dsx-policy: precision fp32 Fp32{}
// dsx-policy: precision fp64 Fp64{}
