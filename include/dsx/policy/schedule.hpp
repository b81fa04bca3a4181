// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Pipeline schedules are data: a constexpr function to a program, and one constexpr checker of all programs.
///
///     static_assert(check(OneForwardOneBackward{}, 4, 8).correct());
///
/// Laws (tests/laws/schedule_laws.hpp): each stage runs every micro-batch once forward and once backward; each send has its
/// receive, in order; nothing deadlocks.
#pragma once

#include <dsx/core/shape.hpp>
#include <dsx/policy/exclusion.hpp>

#include <array>
#include <concepts>
#include <functional>
#include <vector>

namespace dsx {

struct Instruction {
  bool forward = true;
  std::uint32_t micro_batch = 0;
};

/// What one stage does, in order. It receives before an instruction and sends after it.
struct Program {
  std::vector<Instruction> instructions{};

  constexpr void forward(Extent m) { instructions.push_back({true, std::uint32_t(m)}); }
  constexpr void backward(Extent m) { instructions.push_back({false, std::uint32_t(m)}); }
  constexpr Extent size() const { return instructions.size(); }
  /// The most micro-batches under way at once.
  constexpr Extent live() const {
    Extent now = 0, peak = 0;
    for (const Instruction& i : instructions) i.forward ? peak = std::max(peak, ++now) : --now;
    return peak;
  }
};

struct ScheduleSlot {
  static constexpr const char* name = "pipeline schedule";
};

template <class P>
concept PipelineSchedule = requires(const P& p, Extent n) {
  { p.program(n, n, n) } -> std::convertible_to<Program>;  // (stage, stages, micro-batches)
};

/// The identity: one stage, each micro-batch forward, then backward. With more stages there is no program.
struct SingleStage {
  using Slot = ScheduleSlot;
  constexpr Program program(Extent, Extent stages, Extent micro_batches) const {
    Program p;
    for (Extent m = 0; stages == 1 && m < micro_batches; ++m) p.forward(m), p.backward(m);
    return p;
  }
};

/// Any pipeline schedule, chosen at run time.
class AnySchedule : public AnyPolicy {
 public:
  using Slot = ScheduleSlot;
  AnySchedule() : AnySchedule{SingleStage{}} {}
  template <PipelineSchedule P>
    requires(!std::same_as<P, AnySchedule>)
  AnySchedule(P policy) : AnyPolicy{tag_of<P, Slot>()}, program_{[policy](Extent s, Extent n, Extent m) { return policy.program(s, n, m); }} {}
  Program program(Extent stage, Extent stages, Extent micro_batches) const { return program_(stage, stages, micro_batches); }

 private:
  std::function<Program(Extent, Extent, Extent)> program_;
};
static_assert(PipelineSchedule<SingleStage> && PipelineSchedule<AnySchedule>);

struct ScheduleReport {
  const char* why = "";    // what is wrong; empty: nothing
  Extent live = 0;         // most micro-batches under way on any stage
  Extent ticks = 0;        // one instruction each
  Extent idle = 0;         // stage-ticks without work: the bubble is idle / (stages ticks)
  constexpr bool correct() const { return *why == '\0'; }
};

/// Plays all stages against each other, a tick an instruction: order of messages, deadlock, liveness, bubble.
template <PipelineSchedule P>
constexpr ScheduleReport check(const P& policy, Extent stages, Extent micro_batches) {
  struct Stage {
    Program program;
    Extent at = 0, forwards = 0, backwards = 0;  // instructions done, and of each kind
    bool moves = false;
  };
  std::vector<Stage> all;
  ScheduleReport report{};
  Extent left = 0;
  for (Extent s = 0; s < stages; ++s) {
    all.push_back({policy.program(s, stages, micro_batches)});
    if (all[s].program.size() != 2 * micro_batches) return {"a stage doesn't run each micro-batch once forward and once backward"};
    report.live = std::max(report.live, all[s].program.live());
    left += all[s].program.size();
  }
  while (left > 0) {
    bool moved = false;
    for (Extent s = 0; s < stages; ++s) {
      Stage& stage = all[s];
      if (stage.at == stage.program.size()) continue;
      const auto [forward, m] = stage.program.instructions[stage.at];
      if (m != (forward ? stage.forwards : stage.backwards)) return {"messages overtake each other"};
      stage.moves = forward ? s == 0 || all[s - 1].forwards > m : stage.forwards > m && (s + 1 == stages || all[s + 1].backwards > m);
    }
    for (Stage& stage : all) {
      if (!stage.moves) continue;
      stage.program.instructions[stage.at].forward ? ++stage.forwards : ++stage.backwards;
      ++stage.at, --left, moved = true, stage.moves = false;
    }
    if (!moved) return {"deadlock"};
    ++report.ticks;
  }
  report.idle = stages * report.ticks - 2 * stages * micro_batches;
  return report;
}

}  // namespace dsx
