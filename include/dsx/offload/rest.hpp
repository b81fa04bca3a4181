// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Lets some kinds of memory rest in another tier between uses, as ZeRO-Offload (Ren et al. 2021) and ZeRO-Infinity (Rajbhandari et al.
/// 2021) do.
///
///     Recipe{ZeRO<2>{}, Rest<OptimizerState>{Tier::host}}    // master weights, moments and the update lie on the host
///     Rest<OptimizerState, Gradients>{.tier = Tier::disk, .folder = "/scratch", .resident_bytes = 256_MiB}
///
/// Bits are those of Resident: what rests elsewhere is copied, and computed with by the same kernels.
#pragma once

#include <dsx/policy/offload.hpp>

namespace dsx {

template <RestingKind... Kinds>
struct Rest {
  using Slot = OffloadSlot;
  Tier tier = Tier::host;
  std::string_view folder{};       // of the disk; empty: the system's for temporary files
  Extent resident_bytes = 64_MiB;  // the most of the disk that is in memory at once

  DiskOptions disk() const { return {.folder = std::string{folder}, .resident_bytes = resident_bytes}; }
  constexpr Tier rests(Kind kind, const ParameterInfo&) const { return ((kind == Kinds::kind) || ...) ? tier : Tier::device; }
};
static_assert(OffloadPolicy<Rest<OptimizerState>>);

}  // namespace dsx

// dsx-policy: offload host_state Rest<OptimizerState>{Tier::host}
// dsx-policy: offload host_gradients Rest<Gradients>{Tier::host}
// dsx-policy: offload host_weights Rest<Parameters>{Tier::host}
// dsx-policy: offload host_activations Rest<Activations>{Tier::host}
// dsx-policy: offload disk_state Rest<OptimizerState>{.tier = Tier::disk, .resident_bytes = 128_KiB}
// dsx-policy: offload disk_gradients Rest<Gradients>{.tier = Tier::disk, .resident_bytes = 128_KiB}
// dsx-policy: offload disk_weights Rest<Parameters>{.tier = Tier::disk, .resident_bytes = 128_KiB}
// dsx-policy: offload disk_activations Rest<Activations>{.tier = Tier::disk, .resident_bytes = 128_KiB}
// dsx-policy: offload host Rest<OptimizerState, Gradients, Parameters, Activations>{Tier::host}
// dsx-policy: offload disk Rest<OptimizerState, Gradients, Parameters, Activations>{.tier = Tier::disk, .resident_bytes = 128_KiB}
