// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of a pipeline schedule: each stage runs every micro-batch once forward and once backward, each send has its receive
/// in order, nothing deadlocks, and the program is the same whenever it is asked for.
///
///     laws::schedule(GPipe{}, 8);   // stages that it has programs for
#pragma once

#include "law.hpp"

#include <dsx/policy/schedule.hpp>

#include <deque>

namespace laws {

using namespace dsx;

/// Plays the messages of all stages through queues, one stage as far as it gets, then the next: what arrives is what is waited for.
inline bool plays(const std::vector<Program>& programs) {
  const Extent stages = programs.size();
  std::vector<std::deque<Extent>> down(stages), up(stages);  // that wait in front of a stage
  std::vector<Extent> at(stages);
  for (bool moved = true; moved;) {
    moved = false;
    for (Extent s = 0; s < stages; ++s)
      for (; at[s] < programs[s].size(); ++at[s], moved = true) {
        const auto [forward, m] = programs[s].instructions[at[s]];
        const bool receives = forward ? s > 0 : s + 1 < stages;
        auto& queue = forward ? down[s] : up[s];
        if (receives && queue.empty()) break;
        if (receives && queue.front() != m) return false;
        if (receives) queue.pop_front();
        if (forward && s + 1 < stages) down[s + 1].push_back(m);
        if (!forward && s > 0) up[s - 1].push_back(m);
      }
  }
  bool done = true;
  for (Extent s = 0; s < stages; ++s) done = done && at[s] == programs[s].size() && down[s].empty() && up[s].empty();
  return done;
}

template <PipelineSchedule P>
void schedule(const P& policy, Extent most_stages) {
  for (Extent stages = 1; stages <= most_stages; ++stages)
    for (Extent micro_batches = 1; micro_batches <= 9; ++micro_batches) {
      const ScheduleReport report = check(policy, stages, micro_batches);
      LAW(report.correct(), report.why);
      std::vector<Program> programs;
      for (Extent s = 0; s < stages; ++s) {
        programs.push_back(policy.program(s, stages, micro_batches));
        const Program again = policy.program(s, stages, micro_batches);
        std::vector<int> forward(micro_batches), backward(micro_batches);
        bool same = again.size() == programs[s].size();
        for (Extent i = 0; i < programs[s].size(); ++i) {
          const auto [is_forward, m] = programs[s].instructions[i];
          LAW(m < micro_batches, "micro-batch ", m, " of ", micro_batches);
          if (m >= micro_batches) return;
          ++(is_forward ? forward : backward)[m];
          LAW(forward[m] >= backward[m], "backward before forward");
          same = same && again.instructions[i].forward == is_forward && again.instructions[i].micro_batch == m;
        }
        LAW(same, "another program the second time");
        LAW(forward == std::vector<int>(micro_batches, 1), "not each micro-batch runs forward once");
        LAW(backward == std::vector<int>(micro_batches, 1), "not each micro-batch runs backward once");
      }
      LAW(plays(programs), "the stages' messages don't fit together");
    }
}

}  // namespace laws
