// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// hpZ of ZeRO++ (Wang et al. 2023): as ZeRO-3, but backward gathers from a second copy that is cut over the near ranks only.
///
///     Recipe{HpZ{}}
#pragma once

#include <dsx/policy/sharding.hpp>

namespace dsx {

struct HpZ {
  using Slot = ShardingSlot;
  constexpr Residency residency(const ParameterInfo& info, const Mesh&) const {
    const Axes all = info.summed_over - Axes::tensor;
    return {all, all & (Axes::inner | Axes::expert_inner), all, all};
  }
};
static_assert(ShardingPolicy<HpZ>);

}  // namespace dsx

// dsx-policy: sharding hpz HpZ{}
