// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// MiCS (Zhang et al. 2022): everything is cut over the near ranks only, and far groups hold copies, so gathers stay near.
///
///     Mesh mesh{session, {.data = 16, .inner = 8}};
///     Mesh experts{session, {.data = 16, .inner = 8, .expert = 4}};     // each expert is cut over the two near ranks that have it
///     Recipe{MiCS{}}
#pragma once

#include <dsx/policy/sharding.hpp>

namespace dsx {

struct MiCS {
  using Slot = ShardingSlot;
  constexpr Residency residency(const ParameterInfo& info, const Mesh&) const {
    const Axes near = info.summed_over & (Axes::inner | Axes::expert_inner);
    return {near, near, near, near};
  }
};
static_assert(ShardingPolicy<MiCS>);

}  // namespace dsx

// dsx-policy: sharding mics MiCS{}
