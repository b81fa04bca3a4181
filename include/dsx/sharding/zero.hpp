// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// ZeRO (Rajbhandari et al. 2020): stage 1 cuts the optimizer's state over the data ranks, 2 the gradients too, 3 the weights too.
///
///     Recipe{ZeRO<3>{}}
///     Recipe{ZeRO<3>{.ahead = false}}    // one unit's weights and gradients are whole at a time, not two
#pragma once

#include <dsx/policy/sharding.hpp>

namespace dsx {

template <int Stage>
struct ZeRO {
  static_assert(Stage >= 1 && Stage <= 3, "dsx-E101: ZeRO has stages 1, 2 and 3; plain data parallelism is Replicate");
  using Slot = ShardingSlot;
  bool ahead = true;  // weights of a unit, and gradients of the last one, are under way while another unit computes
  constexpr Residency residency(const ParameterInfo& info, const Mesh&) const {
    const Axes all = info.summed_over - Axes::tensor;
    const Axes weights = Stage >= 3 ? all : Axes::none;
    return {weights, weights, Stage >= 2 ? all : Axes::none, all, ahead};
  }
};
static_assert(ShardingPolicy<ZeRO<3>>);

}  // namespace dsx

// dsx-policy: sharding zero1 ZeRO<1>{}
// dsx-policy: sharding zero2 ZeRO<2>{}
// dsx-policy: sharding zero3 ZeRO<3>{}
