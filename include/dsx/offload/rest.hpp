// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Lets some kinds of memory rest in another tier between uses, as ZeRO-Offload does (Ren et al. 2021).
///
///     Recipe{ZeRO<2>{}, Rest<OptimizerState>{Tier::host}}    // master weights, moments and the update lie on the host
///     Rest<OptimizerState, Gradients>{Tier::host}
///
/// Bits are those of Resident: what rests elsewhere is copied, and computed with by the same kernels.
#pragma once

#include <dsx/policy/offload.hpp>

namespace dsx {

template <RestingKind... Kinds>
struct Rest {
  using Slot = OffloadSlot;
  Tier tier = Tier::host;

  constexpr Tier rests(Kind kind, const ParameterInfo&) const { return ((kind == Kinds::kind) || ...) ? tier : Tier::device; }
};
static_assert(OffloadPolicy<Rest<OptimizerState>>);

}  // namespace dsx
