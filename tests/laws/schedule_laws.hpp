// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of a pipeline schedule: each stage runs every micro-batch once forward and once backward on each
/// of its chunks, each send has its receive in order, nothing deadlocks, and the program is the same whenever it is asked for.
///
///     laws::schedule(GPipe{}, 8);   // stages that it has programs for
#pragma once

#include "law.hpp"

#include <dsx/policy/schedule.hpp>

#include <deque>

namespace laws {

using namespace dsx;

/// Plays the messages of all stages through queues, one stage as far as it gets, then the next: what arrives is what is waited for.
/// A queue leads into each chunk of the model, one of values and one of gradients.
inline bool plays(const std::vector<Program>& programs, Extent chunks = 1) {
  const Extent stages = programs.size(), links = stages * chunks;
  std::vector<std::deque<Extent>> down(links), up(links);  // that wait in front of a chunk
  std::vector<Extent> at(stages);
  for (bool moved = true; moved;) {
    moved = false;
    for (Extent s = 0; s < stages; ++s)
      for (; at[s] < programs[s].size(); ++at[s], moved = true) {
        const auto [forward, m, chunk] = programs[s].instructions[at[s]];
        const Extent link = chunk * stages + s;
        const bool receives = forward ? link > 0 : link + 1 < links;
        auto& queue = forward ? down[link] : up[link];
        if (receives && queue.empty()) break;
        if (receives && queue.front() != m) return false;
        if (receives) queue.pop_front();
        if (forward && link + 1 < links) down[link + 1].push_back(m);
        if (!forward && link > 0) up[link - 1].push_back(m);
      }
  }
  bool done = true;
  for (Extent s = 0; s < stages; ++s) done = done && at[s] == programs[s].size();
  for (Extent l = 0; l < links; ++l) done = done && down[l].empty() && up[l].empty();
  return done;
}

template <PipelineSchedule P>
void schedule(const P& policy, Extent most_stages) {
  for (Extent stages = 1; stages <= most_stages; ++stages)
    for (Extent micro_batches = 1; micro_batches <= 9; ++micro_batches) {
      const ScheduleReport report = check(policy, stages, micro_batches);
      LAW(report.correct(), report.why);
      const Extent chunks = chunks_of(policy, stages);
      std::vector<Program> programs;
      for (Extent s = 0; s < stages; ++s) {
        programs.push_back(policy.program(s, stages, micro_batches));
        const Program again = policy.program(s, stages, micro_batches);
        std::vector<int> forward(micro_batches * chunks), backward(micro_batches * chunks);
        bool same = again.size() == programs[s].size();
        for (Extent i = 0; i < programs[s].size(); ++i) {
          const auto [is_forward, m, chunk] = programs[s].instructions[i];
          LAW(m < micro_batches && chunk < chunks, "micro-batch ", m, " of ", micro_batches, ", chunk ", chunk, " of ", chunks);
          if (m >= micro_batches || chunk >= chunks) return;
          const Extent part = chunk * micro_batches + m;
          ++(is_forward ? forward : backward)[part];
          LAW(forward[part] >= backward[part], "backward before forward");
          const Instruction& other = again.instructions[i];
          same = same && other.forward == is_forward && other.micro_batch == m && other.chunk == chunk;
        }
        LAW(same, "another program the second time");
        LAW(forward == std::vector<int>(micro_batches * chunks, 1), "not each micro-batch runs forward once");
        LAW(backward == std::vector<int>(micro_batches * chunks, 1), "not each micro-batch runs backward once");
      }
      LAW(plays(programs, chunks), "the stages' messages don't fit together");
    }
}

}  // namespace laws
