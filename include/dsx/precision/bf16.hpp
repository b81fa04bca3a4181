// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Mixed precision (Micikevicius et al. 2018; Kalamkar et al. 2019): bfloat16 values and weights over wider master weights.
///
///     Recipe{Bf16{.gradient = Element::bf16}}
#pragma once

#include <dsx/policy/precision.hpp>

namespace dsx {

struct Bf16 {
  using Slot = PrecisionSlot;
  Element master = Element::f32;
  Element gradient = Element::f32;
  constexpr Elements elements() const { return {Element::bf16, gradient, master}; }
};
static_assert(PrecisionPolicy<Bf16>);

}  // namespace dsx

// dsx-policy: precision bf16 Bf16{}
