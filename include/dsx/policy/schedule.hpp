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
  std::uint32_t chunk = 0;  // of the stage's
};

/// What one stage does, in order. It receives before an instruction and sends after it.
struct Program {
  std::vector<Instruction> instructions{};

  constexpr void forward(Extent m, Extent chunk = 0) { instructions.push_back({true, std::uint32_t(m), std::uint32_t(chunk)}); }
  constexpr void backward(Extent m, Extent chunk = 0) { instructions.push_back({false, std::uint32_t(m), std::uint32_t(chunk)}); }
  constexpr Extent size() const { return instructions.size(); }
  /// The most micro-batches under way at once, on all chunks together.
  constexpr Extent live() const {
    return peak([](const Instruction&) { return true; });
  }
  /// On one chunk.
  constexpr Extent live(Extent chunk) const {
    return peak([chunk](const Instruction& i) { return i.chunk == chunk; });
  }

 private:
  constexpr Extent peak(auto counts) const {
    Extent now = 0, peak = 0;
    for (const Instruction& i : instructions)
      if (counts(i)) i.forward ? peak = std::max(peak, ++now) : --now;
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

/// Chunks of consecutive units that a stage holds: chunk c of stage s is the (c stages + s)-th of the model. One, unless a policy
/// says otherwise: `Extent chunks(Extent stages) const`.
template <PipelineSchedule P>
constexpr Extent chunks_of(const P& policy, Extent stages) {
  if constexpr (requires { policy.chunks(stages); }) return policy.chunks(stages);
  else return 1;
}

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
  AnySchedule(P policy)
      : AnyPolicy{tag_of<P, Slot>()},
        program_{[policy](Extent s, Extent n, Extent m) { return policy.program(s, n, m); }},
        chunks_{[policy](Extent stages) { return chunks_of(policy, stages); }} {}
  Program program(Extent stage, Extent stages, Extent micro_batches) const { return program_(stage, stages, micro_batches); }
  Extent chunks(Extent stages) const { return chunks_(stages); }

 private:
  std::function<Program(Extent, Extent, Extent)> program_;
  std::function<Extent(Extent)> chunks_;
};
static_assert(PipelineSchedule<SingleStage> && PipelineSchedule<AnySchedule>);

struct ScheduleReport {
  const char* why = "";    // what is wrong; empty: nothing
  Extent live = 0;         // most micro-batches under way on any stage, each chunk counted
  Extent ticks = 0;        // one instruction each
  Extent idle = 0;         // stage-ticks without work: the bubble is idle / (stages ticks)
  constexpr bool correct() const { return *why == '\0'; }
};

/// Plays all stages against each other, a tick an instruction: order of messages, deadlock, liveness, bubble.
template <PipelineSchedule P>
constexpr ScheduleReport check(const P& policy, Extent stages, Extent micro_batches) {
  const Extent chunks = chunks_of(policy, stages), links = chunks * stages;
  struct Stage {
    Program program;
    Extent at = 0;  // instructions done
    bool moves = false;
  };
  std::vector<Stage> all;
  std::vector<Extent> forwards(links), backwards(links);  // done, by chunk of the model
  ScheduleReport report{};
  Extent left = 0;
  for (Extent s = 0; s < stages; ++s) {
    all.push_back({policy.program(s, stages, micro_batches)});
    if (all[s].program.size() != 2 * micro_batches * chunks) return {"a stage doesn't run each micro-batch once forward and once backward"};
    for (const Instruction& i : all[s].program.instructions)
      if (i.chunk >= chunks) return {"a stage runs a chunk that it doesn't have"};
    report.live = std::max(report.live, all[s].program.live());
    left += all[s].program.size();
  }
  while (left > 0) {
    bool moved = false;
    for (Extent s = 0; s < stages; ++s) {
      Stage& stage = all[s];
      if (stage.at == stage.program.size()) continue;
      const auto [forward, m, chunk] = stage.program.instructions[stage.at];
      const Extent link = chunk * stages + s;
      if (m != (forward ? forwards[link] : backwards[link])) return {"messages overtake each other"};
      stage.moves = forward ? link == 0 || forwards[link - 1] > m : forwards[link] > m && (link + 1 == links || backwards[link + 1] > m);
    }
    for (Extent s = 0; s < stages; ++s) {
      Stage& stage = all[s];
      if (!stage.moves) continue;
      const Instruction& i = stage.program.instructions[stage.at++];
      ++(i.forward ? forwards : backwards)[i.chunk * stages + s];
      --left, moved = true, stage.moves = false;
    }
    if (!moved) return {"deadlock"};
    ++report.ticks;
  }
  report.idle = stages * report.ticks - 2 * stages * micro_batches * chunks;
  return report;
}

}  // namespace dsx

// dsx-policy: pipeline schedule single SingleStage{}
