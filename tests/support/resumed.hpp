// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A stretch of a toy run between two checkpoints.
///
///     toy::Run first = toy::stretch(cell, {0, 6}, {}, folder / "six");
///     toy::Run rest = toy::stretch(cell, {6, 12}, folder / "six", folder / "twelve");
#pragma once

#include "runs.hpp"

#include <dsx/train/checkpoint.hpp>

namespace toy {

/// Steps [range) in a session of its own; loads `from` before and saves `to` after, where they are named.
inline Run stretch(const Cell& c, Range range, const std::filesystem::path& from, const std::filesystem::path& to) {
  Run run;
  Complaints complaints;
  try {
    launch_threads(c.ranks(),
                   [&](Session& session) {
                     const Mesh mesh{session, c.degrees};
                     Weights weights{mesh, make_model(), recipe_of(c)};
                     Trainer trainer{weights, optimizer_of(c.rule), TokenLoss{.chunk = 10}, options_of(c)};
                     if (!from.empty()) {
                       const Json extra = load(from, trainer);
                       if (extra.text() != "of a test") complaints.add("extra came back as ", extra.dump());
                       if (trainer.steps() != range.begin) complaints.add("resumed at step ", trainer.steps());
                     }
                     for (Extent step = range.begin; step < range.end; ++step) {
                       const Verdict v = trainer.step(c.feed()(step, mesh.coordinate(Axes::data)));
                       if (session.is_root()) run.losses.push_back(v.loss), run.norms.push_back(std::sqrt(v.squared_norm));
                     }
                     if (!to.empty())
                       save(to, trainer, [](const std::filesystem::path& folder) { write_file(folder / "beside.txt", "beside"); }, Json{"of a test"});
                     for (const ParameterRecord& r : weights.records()) {
                       auto w = weights.weight<double>(r.path);
                       if (session.is_root()) run.weights.push_back({r.path, std::move(w)});
                     }
                   },
                   {.time_limit = std::chrono::seconds{60}});
  } catch (const std::exception& e) {
    complaints.add(e.what());
  }
  run.complaints = complaints.take();
  return run;
}

/// The cell of a process of its own.
inline Cell far_cell() { return {Sharding::zero_2, {.data = 2, .tensor = 2}, Schedule::single, 2, false, Rule::adamw}; }

}  // namespace toy
