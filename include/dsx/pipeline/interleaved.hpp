// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Interleaved 1F1B (Narayanan et al. 2021): each stage holds Chunks pieces of the model, so that the bubble shrinks Chunks times
/// and each micro-batch passes each stage Chunks times.
///
///     Recipe{Interleaved<2>{}}
#pragma once

#include <dsx/policy/schedule.hpp>

namespace dsx {

/// Micro-batches go by in groups, each through a chunk before any of it enters the next. A group has at least as many as there are
/// stages, so that the first comes back to stage 0 when the last has left it; what doesn't divide makes groups larger.
template <int Chunks>
struct Interleaved {
  static_assert(Chunks >= 2, "dsx-E116: an interleaved schedule has two chunks a stage or more; with one it is OneForwardOneBackward");
  using Slot = ScheduleSlot;

  /// One stage has nobody to alternate with.
  constexpr Extent chunks(Extent stages) const { return stages > 1 ? Extent(Chunks) : 1; }
  constexpr Program program(Extent stage, Extent stages, Extent micro_batches) const {
    const Extent chunks = this->chunks(stages), all = chunks * micro_batches, groups = std::max<Extent>(1, micro_batches / stages);
    const Extent largest = (micro_batches + groups - 1) / groups;
    const Extent ahead = std::min(2 * (stages - stage - 1) + (chunks - 1) * largest + 1, all);
    const auto place = [&](Extent turn) {
      Extent group = 0;
      while (turn >= chunks * share({0, micro_batches}, groups, group).end) ++group;
      const Range members = share({0, micro_batches}, groups, group);
      const Extent within = turn - chunks * members.begin;
      return std::pair{members.begin + within % members.size(), within / members.size()};
    };
    Program p;
    const auto forward = [&](Extent turn) {
      const auto [m, chunk] = place(turn);
      p.forward(m, chunk);
    };
    for (Extent turn = 0; turn < ahead; ++turn) forward(turn);
    for (Extent turn = 0; turn < all; ++turn) {
      const auto [m, chunk] = place(turn);
      p.backward(m, chunks - 1 - chunk);
      if (turn + ahead < all) forward(turn + ahead);
    }
    return p;
  }
};
static_assert(PipelineSchedule<Interleaved<2>>);

}  // namespace dsx

// dsx-policy: pipeline schedule interleaved Interleaved<2>{}
