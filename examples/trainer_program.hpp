// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A trainer as a program, whatever its model: flags, data, recipe, steps, files. What the model brings is a Kind:
///
///     struct Mine {
///       static constexpr const char *program = "train_mine", *text = "Trains mine on text.";
///       static dsx::Gpt2Shape start() { return {.width = 256}; }         // what flags begin with
///       Config config;                                                   // as files hold it
///       Mine(const Options<Mine>&, const std::optional<dsx::Tokenizer>&, dsx::Extent vocabulary, const std::filesystem::path& from);
///       ...                                                              // see train_gpt2.cpp
///     };
///     int main(int argc, char** argv) { return run_trainer<Mine>(argc, argv); }
#pragma once

#include <dsx/infer/text.hpp>
#include <dsx/kernels/threads.hpp>
#include <dsx/optim/any_optimizer.hpp>
#include <dsx/recipes.hpp>
#include <dsx/train/report.hpp>
#include <dsx/train/run_options.hpp>

#include "command_line.hpp"

#include <memory>

template <class Kind>
struct Options : dsx::RunOptions {
  decltype(Kind::start()) model = Kind::start();
};

/// A resumed run takes its flags from the checkpoint, but for those given now. A value is the exit code.
template <class Kind>
std::optional<int> read_flags(CLI::App& app, Options<Kind>& o, int argc, char** argv) {
  dsx::each_flag(o, o.model, CommandLine{app});
  try {
    app.parse(argc, argv);
    if (o.list_recipes) return std::fputs(dsx::list_of_recipes().c_str(), stdout), 0;
    if (!o.resume.empty()) {
      const auto checkpoint = std::filesystem::canonical(dsx::newest_checkpoint(o.resume));
      app.set_config("--config", (checkpoint / "options.ini").string(), "flags of the run that is resumed");
      app.parse(argc, argv);
      if (o.fit.save.empty()) o.fit.save = checkpoint.parent_path();
    }
    if (o.corpus.data.empty() && !o.dry) throw CLI::RequiredError{"--data"};
    dsx::settle_ranks(o);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 1;
  } catch (const std::exception& e) {
    return std::fprintf(stderr, "%s\n", e.what()), 1;
  }
  return {};
}

/// What a run does between its steps: feeds, judges, samples, keeps files.
template <class Trainer, class Kind>
dsx::FitParts parts_of(const Options<Kind>& o, Trainer& trainer, const Kind& kind, const dsx::Corpus& corpus, const std::string& settings) {
  const dsx::Mesh& mesh = trainer.mesh();
  dsx::FitParts parts{.data = corpus.identity()};
  parts.batches = [feed = std::make_shared<dsx::Feed>(corpus.training, mesh, o.feed)](dsx::Extent step) { return feed->at(step); };
  const dsx::CosineRate schedule{o.rate.rate > 0 ? o.rate.rate : dsx::usual_rate(o.optimizer), o.rate.least, o.rate.warmup, o.fit.steps};
  parts.rate = [schedule, &trainer](dsx::Extent step) {
    return trainer.optimizer().scale_rate(schedule.at(step) / schedule.rate), trainer.optimizer().rate();
  };
  parts.also = [kind, settings, tokenizer = corpus.tokenizer](const std::filesystem::path& folder) {
    kind.write_files(folder, tokenizer);
    dsx::write_file(folder / "options.ini", settings);
  };
  if constexpr (requires { kind.look(trainer.weights()); }) parts.look = kind.look(trainer.weights());
  return parts;
}

template <class Kind>
void train(Options<Kind> o, const std::string& settings, dsx::Session& session) {
  const dsx::Mesh mesh{session, o.mesh.empty() ? dsx::Degrees{.data = session.ranks()} : o.degrees};
  dsx::kernels::use_threads(o.threads ? o.threads : dsx::kernels::processors() / session.ranks());
  dsx::Progress progress{{.steps = o.fit.steps, .quiet = !session.is_root() || session.is_dry()}};
  o.corpus.say = [&](std::string_view line) { progress.say(line); };
  std::optional<dsx::Corpus> corpus;
  if (!session.is_dry()) corpus = dsx::open_corpus(o.corpus, mesh);
  const auto tokenizer = corpus ? corpus->tokenizer : std::nullopt;

  const std::filesystem::path from = !o.resume.empty() ? dsx::newest_checkpoint(o.resume) : o.load;
  const Kind kind{o, tokenizer, corpus ? corpus->vocabulary() : o.corpus.vocabulary, from};
  const dsx::Extent rows = dsx::rows_of(o.feed, mesh);
  const dsx::TrainerOptions options{o.feed.micro_batches, rows, o.clip, o.feed.seed};
  const std::string names = o.precision == "fp32" ? o.recipe : o.recipe + (o.recipe.empty() ? "" : "+") + o.precision;
  dsx::Weights weights{mesh, kind.model(), dsx::choose_recipe(names, o.degrees.pipe), o.feed.seed};
  o.feed.by_grains = weights.fixed_grains();
  const double rate = o.rate.rate > 0 ? o.rate.rate : dsx::usual_rate(o.optimizer);
  const auto optimizer = dsx::optimizer_named(o.optimizer, rate, o.decay, o.freeze_step);
  dsx::Trainer trainer{weights, optimizer, dsx::TokenLoss{}, options};
  const dsx::Traffic traffic = session.traffic;
  dsx::Evaluator evaluator{weights, dsx::TokenLoss{}, rows};
  std::optional<dsx::Generator<decltype(weights)>> generator;
  if (o.fit.sample_every > 0) generator.emplace(weights, dsx::GeneratorOptions{.length = kind.length(), .vocabulary = kind.vocabulary()});
  if (!corpus) {
    const auto plan = [&](std::string_view of) {
      dsx::Session other = dsx::Session::dry(session.rank(), session.ranks());
      const dsx::Mesh other_mesh{other, mesh.degrees()};
      dsx::Weights other_weights{other_mesh, kind.model(), dsx::choose_recipe(of, o.degrees.pipe)};
      const dsx::Trainer other_trainer{other_weights, optimizer, dsx::TokenLoss{}, options};
      const auto peak = [&](dsx::Tier tier) { return double(other.memory.peak_bytes(tier)); };
      return dsx::StepCost{{peak(dsx::Tier::device), peak(dsx::Tier::host), peak(dsx::Tier::disk)}, other.traffic.wire_bytes()};
    };
    return void(std::printf("%s%s\n", dsx::describe(trainer, traffic).c_str(), dsx::costs_by_name(names, plan).c_str()));
  }

  if (!o.resume.empty())
    dsx::resume(from, trainer, corpus->identity());
  else if (!o.load.empty())
    kind.load(from, weights);
  progress.say(dsx::concat(dsx::count_text(double(weights.parameters())), " parameters, ", corpus->training.size(),
                           " tokens to train on, ranks: ", session.ranks()));
  dsx::FitParts parts = parts_of(o, trainer, kind, *corpus, settings);
  std::optional<dsx::Feed> held_out;
  if (corpus->validation && corpus->validation->size() > o.feed.context) {
    held_out.emplace(*corpus->validation, mesh, o.feed);
    parts.evaluate = [&] { return dsx::judged(evaluator, *held_out, o.eval_batches * o.feed.batch); };
    const double unigram = dsx::unigram_loss(corpus->training, *corpus->validation);
    progress.say(dsx::concat(corpus->validation->size(), " tokens held out, unigram loss ", unigram));
  }
  const dsx::Decoding how{.temperature = 0.8, .top_k = 40, .seed = o.feed.seed};
  if (generator && tokenizer) parts.sample = [&] { return dsx::write_text(*generator, *tokenizer, "", 0, how); };
  if (!o.export_to.empty()) kind.check_export();
  if (!o.export_to.empty() && session.is_root()) dsx::make_folders(o.export_to);  // or it is refused now, not at the end
  o.fit.tokens = o.feed.batch * o.feed.context;
  const bool finished = dsx::fit(trainer, progress, o.fit, parts);
  if (!o.export_to.empty()) kind.write_model(o.export_to, weights, tokenizer), progress.say(dsx::concat("exported ", o.export_to));
  if (!finished)
    progress.say(o.fit.save.empty() ? "stopped; without --save nothing is kept"
                                    : dsx::concat("stopped; go on with: ", Kind::program, " --resume ", o.fit.save));
}

template <class Kind>
int run_trainer(int argc, char** argv) {
  CLI::App app{Kind::text};
  Options<Kind> o;
  if (const auto code = read_flags(app, o, argc, argv)) return *code;
  const std::string settings = app.config_to_str(true);
  const dsx::StopSignals signals;
  const dsx::LaunchOptions ranks{.ranks = o.ranks, .device_bytes = o.device_bytes};
  if (!o.dry) return dsx::launch(argc, argv, ranks, [&](dsx::Session& session) { train(o, settings, session); });
  return dsx::launch(argc, argv, [&](dsx::Session&) {
    for (dsx::Extent stage = 0; stage < o.degrees.pipe; ++stage) {
      dsx::Session plan = dsx::Session::dry(stage * o.degrees.ranks() / o.degrees.pipe, o.degrees.ranks());
      train(o, settings, plan);
    }
  });
}
