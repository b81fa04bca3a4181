// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Trains a GPT-2 on text, on one core or on many ranks.
///
///     train_gpt2 --data book.txt --steps 500 --save run --metrics run.jsonl
///     train_gpt2 --resume run
#include <dsx/infer/text.hpp>
#include <dsx/kernels/threads.hpp>
#include <dsx/optim/any_optimizer.hpp>
#include <dsx/recipes.hpp>
#include <dsx/train/gpt2_files.hpp>
#include <dsx/train/report.hpp>
#include <dsx/train/run_options.hpp>

#include "command_line.hpp"

namespace {

struct Options : dsx::RunOptions { dsx::Gpt2Shape model{.width = 256, .heads = 8, .layers = 6}; };

/// A resumed run takes its flags from the checkpoint, but for those given now. A value is the exit code.
std::optional<int> read_flags(CLI::App& app, Options& o, int argc, char** argv) {
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

void train(Options o, const std::string& settings, dsx::Session& session) {
  const dsx::Mesh mesh{session, o.mesh.empty() ? dsx::Degrees{.data = session.ranks()} : o.degrees};
  dsx::kernels::use_threads(o.threads ? o.threads : dsx::kernels::processors() / session.ranks());
  dsx::Progress progress{{.steps = o.fit.steps, .quiet = !session.is_root() || session.is_dry()}};
  o.corpus.say = [&](std::string_view line) { progress.say(line); };
  std::optional<dsx::Corpus> corpus;
  if (!session.is_dry()) corpus = dsx::open_corpus(o.corpus, mesh);
  const auto tokenizer = corpus ? corpus->tokenizer : std::nullopt;

  o.model.attention_dropout = o.model.dropout;
  o.model.vocabulary = corpus ? corpus->vocabulary() : o.corpus.vocabulary, o.model.positions = o.feed.context;
  const std::filesystem::path from = !o.resume.empty() ? dsx::newest_checkpoint(o.resume) : o.load;
  const dsx::GptConfig config = from.empty() ? dsx::config_of(o.model, tokenizer) : dsx::config_for(from, o.feed.context, o.model.vocabulary);
  const std::string names = o.precision == "fp32" ? o.recipe : o.recipe + (o.recipe.empty() ? "" : "+") + o.precision;
  const dsx::AnyRecipe recipe = dsx::choose_recipe(names, o.degrees.pipe);
  dsx::Weights weights{mesh, dsx::make_gpt2(dsx::shape_of(config, o.model.dropout)), recipe, o.feed.seed};
  o.feed.by_grains = weights.fixed_grains();
  const dsx::CosineRate schedule{o.rate.rate > 0 ? o.rate.rate : dsx::usual_rate(o.optimizer), o.rate.least, o.rate.warmup, o.fit.steps};
  const dsx::Extent rows = dsx::rows_of(o.feed, mesh);
  dsx::Trainer trainer{weights, dsx::optimizer_named(o.optimizer, schedule.rate, o.decay, o.freeze_step), dsx::TokenLoss{},
                       {o.feed.micro_batches, rows, o.clip, o.feed.seed}};
  const dsx::Traffic traffic = session.traffic;
  dsx::Evaluator evaluator{weights, dsx::TokenLoss{}, rows};
  std::optional<dsx::Generator<decltype(weights)>> generator;
  if (o.fit.sample_every > 0) generator.emplace(weights, dsx::GeneratorOptions{.length = config.n_positions, .vocabulary = config.vocab_size});
  if (!corpus) return void(std::printf("%s\n", dsx::describe(trainer, traffic).c_str()));

  if (!o.resume.empty()) dsx::resume(from, trainer, corpus->identity());
  else if (!o.load.empty()) dsx::load_gpt2(from, weights);
  progress.say(dsx::concat(dsx::count_text(double(weights.parameters())), " parameters, ", corpus->training.size(), " tokens to train on, ranks: ",
                           session.ranks()));
  dsx::Feed feed{corpus->training, mesh, o.feed};
  std::optional<dsx::Feed> held_out;
  dsx::FitParts parts{.batches = [&](dsx::Extent step) { return feed.at(step); }, .data = corpus->identity()};
  parts.rate = [&](dsx::Extent step) { return trainer.optimizer().scale_rate(schedule.at(step) / schedule.rate), trainer.optimizer().rate(); };
  if (corpus->validation && corpus->validation->size() > o.feed.context) {
    held_out.emplace(*corpus->validation, mesh, o.feed);
    parts.evaluate = [&] { return dsx::judged(evaluator, *held_out, o.eval_batches * o.feed.batch); };
    const double unigram = dsx::unigram_loss(corpus->training, *corpus->validation);
    progress.say(dsx::concat(corpus->validation->size(), " tokens held out, unigram loss ", unigram));
  }
  const dsx::Decoding how{.temperature = 0.8, .top_k = 40, .seed = o.feed.seed};
  if (generator && tokenizer) parts.sample = [&] { return dsx::write_text(*generator, *tokenizer, "", 0, how); };
  parts.also = [&](const std::filesystem::path& folder) {
    dsx::write_gpt2_files(folder, config, tokenizer);
    dsx::write_file(folder / "options.ini", settings);
  };
  if (!o.export_to.empty() && session.is_root()) dsx::make_folders(o.export_to);  // or it is refused now, not at the end
  o.fit.tokens = o.feed.batch * o.feed.context;
  const bool finished = dsx::fit(trainer, progress, o.fit, parts);
  if (!o.export_to.empty()) dsx::export_gpt2(o.export_to, weights, config, tokenizer), progress.say(dsx::concat("exported ", o.export_to));
  if (!finished) progress.say(o.fit.save.empty() ? "stopped; without --save nothing is kept"
                                                 : dsx::concat("stopped; go on with: train_gpt2 --resume ", o.fit.save));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Trains a GPT-2 on text."};
  Options o;
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
