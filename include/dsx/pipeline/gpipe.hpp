// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// GPipe (Huang et al. 2019): all micro-batches forward, then all backward, each in order.
///
///     Recipe{GPipe{}}
#pragma once

#include <dsx/policy/schedule.hpp>

namespace dsx {

struct GPipe {
  using Slot = ScheduleSlot;
  constexpr Program program(Extent, Extent, Extent micro_batches) const {
    Program p;
    for (Extent m = 0; m < micro_batches; ++m) p.forward(m);
    for (Extent m = 0; m < micro_batches; ++m) p.backward(m);
    return p;
  }
};
static_assert(PipelineSchedule<GPipe>);

}  // namespace dsx

// dsx-policy: pipeline schedule gpipe GPipe{}
