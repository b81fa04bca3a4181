// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A whole run: steps, evaluations, samples, metrics with their curve, checkpoints, progress, and an end that a signal may ask for.
///
///     Progress progress{{.steps = 1000}};
///     const bool finished = fit(trainer, progress, {.steps = 1000, .tokens = 2048, .eval_every = 100, .save = "run"},
///                               {.batches = [&](Extent step) { return feed.at(step); }, .rate = [&](Extent step) { ... }});
///
/// Every rank calls it. It goes on from trainer.steps(): after load() that is where the checkpoint was made.
#pragma once

#include <dsx/train/checkpoint.hpp>
#include <dsx/train/checkpoints.hpp>
#include <dsx/train/progress.hpp>
#include <dsx/train/signals.hpp>

#include <functional>

namespace dsx {

struct FitOptions {
  Extent steps = 0;   // of the whole run
  Extent tokens = 0;  // of a step, on all ranks
  Extent eval_every = 0, sample_every = 0, save_every = 0;  // steps; 0: never, but a run that has a folder is saved at its end
  Extent keep = 3;                                          // newest checkpoints
  std::filesystem::path save{};                             // folder of checkpoints; empty: none are made
  std::filesystem::path metrics{};                          // JSON lines; the curve is drawn into the same name with .svg
};

struct FitParts {
  std::function<std::span<const MicroBatch>(Extent step)> batches{};
  std::function<double(Extent step)> rate{};   // sets the optimizer's rate for a step, and tells it
  std::function<double()> evaluate{};          // the validation loss; maybe none
  std::function<std::string()> sample{};       // text of the model as it is; maybe none
  std::function<void(StepRecord& record)> look{};  // adds to a step's record, on every rank; maybe none
  std::function<void(const std::filesystem::path& folder)> also{};  // adds files to a checkpoint, on the root; maybe none
  std::string data{};                          // what is trained on, for resume() to compare
};

namespace detail {
/// Whether it is so on any rank: all go on or stop together.
inline bool anywhere(bool here, const Mesh& mesh) {
  double any = here;
  mesh.world().all_reduce({&any, {1, 1}, Element::f64}, Combine::max).wait();
  return any > 0;
}
}  // namespace detail

/// Takes a trainer to where a checkpoint of fit() was made. dsx-E710 if `data` isn't what that run was trained on.
template <class Trainer>
void resume(const std::filesystem::path& checkpoint, Trainer& trainer, const std::string& data,
            const std::function<void(std::string_view)>& say = {}) {
  if (const auto before = load(checkpoint, trainer, say).text(); before != data)
    fail<710>("the run in ", checkpoint, " was trained on ", before, ", now there are ", data);
}

/// False if it was stopped by a signal, after a step and its save. Throws dsx-E409 where a loss isn't finite: the last save stays.
template <class Trainer>
bool fit(Trainer& trainer, Progress& progress, const FitOptions& options, const FitParts& parts) {
  const Session& session = trainer.mesh().session();
  const bool root = session.is_root();
  if (root && !options.save.empty()) make_folders(options.save);  // now, not when the first hours are to be saved
  std::optional<MetricsFile> metrics;
  if (root && !options.metrics.empty()) metrics.emplace(options.metrics, trainer.steps());
  const auto draw = [&] {
    if (metrics) write_file(std::filesystem::path{options.metrics}.replace_extension(".svg"), loss_curve(read_metrics(options.metrics)));
  };
  const auto save_now = [&] {
    const std::filesystem::path folder = checkpoint_folder(options.save, trainer.steps());
    save(folder, trainer, [&](const std::filesystem::path& inside) {
      if (parts.also) parts.also(inside);
    }, parts.data);
    if (root) keep_newest(options.save, options.keep);
    progress.say(concat("saved ", folder));
  };
  const auto show_sample = [&] {
    const std::string text = parts.sample();
    progress.say(concat("sample at step ", trainer.steps(), ":\n", text, "\n"));
  };

  if (parts.sample && options.sample_every > 0 && trainer.steps() == 0) show_sample();
  if (trainer.steps() >= options.steps) progress.say(concat("nothing to train: ", trainer.steps(), " of ", options.steps, " steps are done"));
  bool saved = true, stopped = false;
  while (trainer.steps() < options.steps && !stopped) {
    StepRecord record{.learning_rate = parts.rate(trainer.steps())};
    const auto batches = parts.batches(trainer.steps());
    const double before = process_seconds();
    const Verdict verdict = trainer.step(batches);
    record.tokens_per_second = double(options.tokens) / (process_seconds() - before);
    record.step = trainer.steps(), record.tokens = record.step * options.tokens;
    record.loss = verdict.loss, record.gradient_norm = std::sqrt(verdict.squared_norm), record.clipped = verdict.scale < 1;
    if (parts.look) parts.look(record);
    saved = false, stopped = detail::anywhere(StopSignals::asked() != 0, trainer.mesh());
    const auto due = [&](Extent every) { return every > 0 && (record.step % every == 0 || record.step == options.steps || stopped); };
    if (parts.evaluate && due(options.eval_every)) record.validation_loss = parts.evaluate();
    record.seconds = process_seconds(), record.peak_bytes = session.memory.peak_bytes();
    if (metrics) metrics->write(record);
    if (record.validation_loss) draw();
    progress.show(record);
    if (parts.sample && due(options.sample_every)) show_sample();
    if (!options.save.empty() && due(options.save_every)) save_now(), saved = true;
  }
  progress.flush();
  draw();
  if (!options.save.empty() && !saved) save_now();
  return !stopped;
}

}  // namespace dsx
