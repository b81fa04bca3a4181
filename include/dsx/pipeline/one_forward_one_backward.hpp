// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// 1F1B (Narayanan et al. 2019, PipeDream-Flush): as many micro-batches under way as there are stages behind this one.
///
///     Recipe{OneForwardOneBackward{}}
#pragma once

#include <dsx/policy/schedule.hpp>

namespace dsx {

struct OneForwardOneBackward {
  using Slot = ScheduleSlot;
  constexpr Program program(Extent stage, Extent stages, Extent micro_batches) const {
    Program p;
    const Extent ahead = std::min(stages - stage, micro_batches);
    for (Extent m = 0; m < ahead; ++m) p.forward(m);
    for (Extent m = 0; m < micro_batches; ++m) {
      p.backward(m);
      if (m + ahead < micro_batches) p.forward(m + ahead);
    }
    return p;
  }
};
static_assert(PipelineSchedule<OneForwardOneBackward>);

}  // namespace dsx

// dsx-policy: pipeline schedule 1f1b OneForwardOneBackward{}
