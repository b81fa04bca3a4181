// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A trainer as a program, whatever its model: data, recipe, steps, files. What the model brings is a Kind:
///
///     struct Mine {
///       static constexpr const char* program = "train_mine";
///       static dsx::Gpt2Shape start() { return {.width = 256}; }         // what flags begin with
///       Config config;                                                   // as files hold it
///       Mine(const dsx::TrainerFlags<Mine>&, const std::optional<dsx::Tokenizer>&, dsx::Extent vocabulary, const std::filesystem::path& from);
///       ...                                                              // see examples/train_gpt2.cpp
///     };
///     CommandLine line{"Trains mine on text."};                          // anything that reads flags: examples/support/command_line.hpp
///     int main(int argc, char** argv) { return dsx::run_trainer<Mine>(line, argc, argv); }
#pragma once

#include <dsx/infer/text.hpp>
#include <dsx/kernels/threads.hpp>
#include <dsx/optim/any_optimizer.hpp>
#include <dsx/recipes.hpp>
#include <dsx/train/report.hpp>
#include <dsx/train/run_options.hpp>

#include <memory>

namespace dsx {

template <class Kind>
struct TrainerFlags : RunOptions {
  decltype(Kind::start()) model = Kind::start();
};

/// A resumed run takes its flags from the checkpoint, but for those given now. A value is the exit code.
template <class Kind>
std::optional<int> read_flags(auto& line, TrainerFlags<Kind>& o, int argc, char** argv) {
  each_flag(o, o.model, line);
  try {
    if (const auto code = line.read(argc, argv)) return code;
    if (o.list_recipes) return std::fputs(list_of_recipes().c_str(), stdout), 0;
    if (!o.resume.empty()) {
      const auto checkpoint = std::filesystem::canonical(newest_checkpoint(o.resume));
      if (const auto code = line.read(argc, argv, checkpoint / "options.ini")) return code;
      if (o.fit.save.empty()) o.fit.save = checkpoint.parent_path();
    }
    if (o.corpus.data.empty() && !o.dry) fail<713>("--data is missing: text files, folders of them, or one token file");
    settle_ranks(o);
  } catch (const std::exception& e) {
    return std::fprintf(stderr, "%s\n", e.what()), 1;
  }
  return {};
}

/// What a run does between its steps: feeds, judges, samples, keeps files.
template <class Trainer, class Kind>
FitParts parts_of(const TrainerFlags<Kind>& o, Trainer& trainer, const Kind& kind, const Corpus& corpus, const std::string& settings) {
  const Mesh& mesh = trainer.mesh();
  FitParts parts{.data = corpus.identity()};
  parts.batches = [feed = std::make_shared<Feed>(corpus.training, mesh, o.feed)](Extent step) { return feed->at(step); };
  const CosineRate schedule{o.rate.rate > 0 ? o.rate.rate : usual_rate(o.optimizer), o.rate.least, o.rate.warmup, o.fit.steps};
  parts.rate = [schedule, &trainer](Extent step) {
    return trainer.optimizer().scale_rate(schedule.at(step) / schedule.rate), trainer.optimizer().rate();
  };
  parts.also = [kind, settings, tokenizer = corpus.tokenizer](const std::filesystem::path& folder) {
    kind.write_files(folder, tokenizer);
    write_file(folder / "options.ini", settings);
  };
  if constexpr (requires { kind.look(trainer.weights()); }) parts.look = kind.look(trainer.weights());
  return parts;
}

/// One rank's part of a run; on a dry session what it would need is printed.
template <class Kind>
void run_on(TrainerFlags<Kind> o, const std::string& settings, Session& session) {
  const Mesh mesh{session, o.mesh.empty() ? Degrees{.data = session.ranks()} : o.degrees};
  kernels::use_threads(o.threads ? o.threads : kernels::processors() / session.ranks());
  Progress progress{{.steps = o.fit.steps, .quiet = !session.is_root() || session.is_dry()}};
  o.corpus.say = [&](std::string_view line) { progress.say(line); };
  std::optional<Corpus> corpus;
  if (!session.is_dry()) corpus = open_corpus(o.corpus, mesh);
  const auto tokenizer = corpus ? corpus->tokenizer : std::nullopt;

  const std::filesystem::path from = !o.resume.empty() ? newest_checkpoint(o.resume) : o.load;
  const Kind kind{o, tokenizer, corpus ? corpus->vocabulary() : o.corpus.vocabulary, from};
  const Extent rows = rows_of(o.feed, mesh);
  const TrainerOptions options{o.feed.micro_batches, rows, o.clip, o.feed.seed};
  const std::string names = o.precision == "fp32" ? o.recipe : o.recipe + (o.recipe.empty() ? "" : "+") + o.precision;
  Weights weights{mesh, kind.model(), choose_recipe(names, o.degrees.pipe), o.feed.seed};
  o.feed.by_grains = weights.fixed_grains();
  const double rate = o.rate.rate > 0 ? o.rate.rate : usual_rate(o.optimizer);
  const auto optimizer = optimizer_named(o.optimizer, rate, o.decay, o.freeze_step);
  Trainer trainer{weights, optimizer, TokenLoss{}, options};
  const Traffic traffic = session.traffic;
  Evaluator evaluator{weights, TokenLoss{}, rows};
  std::optional<Generator<decltype(weights)>> generator;
  if (o.fit.sample_every > 0) generator.emplace(weights, GeneratorOptions{.length = kind.length(), .vocabulary = kind.vocabulary()});
  if (!corpus) {
    const auto plan = [&](std::string_view of) {
      Session other = Session::dry(session.rank(), session.ranks());
      const Mesh other_mesh{other, mesh.degrees()};
      Weights other_weights{other_mesh, kind.model(), choose_recipe(of, o.degrees.pipe)};
      const Trainer other_trainer{other_weights, optimizer, TokenLoss{}, options};
      const auto peak = [&](Tier tier) { return double(other.memory.peak_bytes(tier)); };
      return StepCost{{peak(Tier::device), peak(Tier::host), peak(Tier::disk)}, other.traffic.wire_bytes()};
    };
    return void(std::printf("%s%s\n", describe(trainer, traffic).c_str(), costs_by_name(names, plan).c_str()));
  }

  if (!o.resume.empty())
    resume(from, trainer, corpus->identity(), o.corpus.say);
  else if (!o.load.empty())
    kind.load(from, weights);
  progress.say(
      concat(count_text(double(weights.parameters())), " parameters, ", corpus->training.size(), " tokens to train on, ranks: ", session.ranks()));
  FitParts parts = parts_of(o, trainer, kind, *corpus, settings);
  std::optional<Feed> held_out;
  if (corpus->validation && corpus->validation->size() > o.feed.context) {
    held_out.emplace(*corpus->validation, mesh, o.feed);
    parts.evaluate = [&] { return judged(evaluator, *held_out, o.eval_batches * o.feed.batch); };
    const double unigram = unigram_loss(corpus->training, *corpus->validation);
    progress.say(concat(corpus->validation->size(), " tokens held out, unigram loss ", unigram));
  }
  const Decoding how{.temperature = 0.8, .top_k = 40, .seed = o.feed.seed};
  if (generator && tokenizer) parts.sample = [&] { return write_text(*generator, *tokenizer, "", 0, how); };
  if (!o.export_to.empty()) kind.check_export();
  if (!o.export_to.empty() && session.is_root()) make_folders(o.export_to);  // or it is refused now, not at the end
  o.fit.tokens = o.feed.batch * o.feed.context;
  const bool finished = fit(trainer, progress, o.fit, parts);
  if (!o.export_to.empty()) kind.write_model(o.export_to, weights, tokenizer), progress.say(concat("exported ", o.export_to));
  if (!finished)
    progress.say(o.fit.save.empty() ? "stopped; without --save nothing is kept"
                                    : concat("stopped; go on with: ", Kind::program, " --resume ", o.fit.save));
}

/// `line` reads flags: line(flag, field) for each, line.read(argc, argv, file of settings), line.settings().
template <class Kind>
int run_trainer(auto&& line, int argc, char** argv) {
  TrainerFlags<Kind> o;
  if (const auto code = read_flags(line, o, argc, argv)) return *code;
  const std::string settings = line.settings();
  const StopSignals signals;
  if (!o.dry) return launch(argc, argv, {.ranks = o.ranks, .device_bytes = o.device_bytes}, [&](Session& session) { run_on(o, settings, session); });
  return launch(argc, argv, [&](Session&) {
    for (Extent stage = 0; stage < o.degrees.pipe; ++stage) {
      Session plan = Session::dry(stage * o.degrees.ranks() / o.degrees.pipe, o.degrees.ranks());
      run_on(o, settings, plan);
    }
  });
}

}  // namespace dsx
