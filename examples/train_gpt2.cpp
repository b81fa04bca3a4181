// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Trains a GPT-2 on text, on one core or on many ranks.
///
///     train_gpt2 --data book.txt --steps 500 --save run --metrics run.jsonl
///     train_gpt2 --resume run
#include <dsx/data/corpus.hpp>
#include <dsx/infer/generator.hpp>
#include <dsx/kernels/threads.hpp>
#include <dsx/optim/any_optimizer.hpp>
#include <dsx/recipes.hpp>
#include <dsx/train/feed.hpp>
#include <dsx/train/fit.hpp>
#include <dsx/train/gpt2_files.hpp>
#include <dsx/train/report.hpp>
#include <dsx/train/schedule.hpp>

#include "train_gpt2/options.hpp"

namespace {

/// The root first, for it may have to write what the others then find.
dsx::Corpus open_together(const Options& o, const dsx::Mesh& mesh, dsx::Progress& progress) {
  const dsx::CorpusOptions options{.data = {o.data.begin(), o.data.end()}, .tokenizer = o.tokenizer, .vocabulary = o.vocabulary, .cache = o.cache,
                                   .split = {.lines = o.block_lines}, .say = [&](std::string_view line) { progress.say(line); }};
  std::optional<dsx::Corpus> corpus;
  if (mesh.session().is_root()) corpus = dsx::open_corpus(options);
  mesh.world().barrier();
  return corpus ? *corpus : dsx::open_corpus(options);
}

void train(const Options& o, const std::string& settings, dsx::Session& session) {
  const dsx::Mesh mesh{session, o.mesh.empty() ? dsx::Degrees{.data = session.ranks()} : o.degrees};
  dsx::kernels::use_threads(o.threads ? o.threads : dsx::kernels::processors() / session.ranks());
  dsx::Progress progress{{.steps = o.steps, .quiet = !session.is_root() || session.is_dry()}};
  std::optional<dsx::Corpus> corpus;
  if (!session.is_dry()) corpus = open_together(o, mesh, progress);

  const std::filesystem::path from = !o.resume.empty() ? dsx::newest_checkpoint(o.resume) : std::filesystem::path{o.load};
  dsx::GptConfig config = dsx::config_of({corpus ? corpus->vocabulary() : o.vocabulary, o.context, o.width, o.heads, o.layers, 0, o.dropout});
  if (corpus && corpus->tokenizer) config.bos_token_id = config.eos_token_id = corpus->tokenizer->end_of_text();
  if (!from.empty()) config = dsx::config_for(from, o.context, config.vocab_size);

  const std::string recipe = o.precision == "fp32" ? o.recipe : o.recipe + (o.recipe.empty() ? "" : "+") + o.precision;
  const dsx::AnyRecipe policies = dsx::choose_recipe(recipe, mesh.size(dsx::Axes::pipe));
  dsx::Weights weights{mesh, dsx::make_gpt2(dsx::shape_of(config, o.dropout)), policies, o.seed};
  const double peak = o.rate > 0 ? o.rate : dsx::usual_rate(o.optimizer);
  const dsx::FeedOptions feeding{o.batch, o.context, o.micro_batches, o.seed};
  const dsx::Extent rows = dsx::rows_of(feeding, mesh);
  dsx::Trainer trainer{weights, dsx::optimizer_named(o.optimizer, peak, o.decay), dsx::TokenLoss{}, {o.micro_batches, rows, o.clip, o.seed}};
  const dsx::Traffic traffic = session.traffic;
  dsx::Evaluator evaluator{weights, dsx::TokenLoss{}, rows};
  std::optional<dsx::Generator<decltype(weights)>> generator;
  if (o.sample_every > 0) generator.emplace(weights, dsx::GeneratorOptions{.length = config.n_positions, .vocabulary = config.vocab_size});
  if (!corpus) return void(std::printf("%s\n", dsx::describe(trainer, traffic).c_str()));

  if (!o.load.empty()) dsx::load_gpt2(o.load, weights);
  if (!o.resume.empty())
    if (const auto data = dsx::load(from, trainer).text(); data != corpus->identity())
      dsx::fail<710>("the run in ", from, " was trained on ", data, ", now there are ", corpus->identity());
  dsx::Feed feed{corpus->training, mesh, feeding};
  std::optional<dsx::Feed> held_out;
  if (corpus->validation && corpus->validation->size() > o.context) held_out.emplace(*corpus->validation, mesh, feeding);
  progress.say(dsx::concat(dsx::count_text(double(weights.parameters())), " parameters, ", corpus->training.size(), " tokens to train on, ranks: ",
                           session.ranks()));
  const double unigram = held_out ? dsx::unigram_loss(corpus->training, *corpus->validation) : 0;
  if (held_out) progress.say(dsx::concat(corpus->validation->size(), " tokens held out, unigram loss ", unigram));

  const dsx::CosineRate schedule{.rate = peak, .least = o.min_rate, .warmup = o.warmup, .steps = o.steps};
  dsx::FitParts parts{.batches = [&](dsx::Extent step) { return feed.at(step); }, .extra = corpus->identity()};
  parts.rate = [&](dsx::Extent step) { return trainer.optimizer().scale_rate(schedule.at(step) / peak), trainer.optimizer().rate(); };
  if (held_out) parts.evaluate = [&] { return dsx::judged(evaluator, *held_out, o.eval_batches * o.batch); };
  if (generator && corpus->tokenizer)
    parts.sample = [&] {
      const std::vector<std::vector<int>> prompts{corpus->encode("")};
      const dsx::Decoding how{.temperature = 0.8, .top_k = 40, .seed = o.seed, .end = corpus->tokenizer->end_of_text()};
      return corpus->tokenizer->decode(generator->generate(prompts, config.n_positions - 1, how).front());
    };
  parts.also = [&](const std::filesystem::path& folder) {
    dsx::write_gpt2_config(folder / "config.json", config);
    if (corpus->tokenizer) corpus->tokenizer->save(folder / "tokenizer.json");
    dsx::write_file(folder / "options.ini", settings);
  };
  const std::string run = o.save.empty() ? o.resume : o.save;
  const dsx::FitOptions fitting{o.steps, o.batch * o.context, o.eval_every, o.sample_every, o.save_every, o.keep, run, o.metrics};
  const bool finished = dsx::fit(trainer, progress, fitting, parts);
  if (!o.export_to.empty()) dsx::export_gpt2(o.export_to, weights, config);
  if (!finished) progress.say(run.empty() ? "stopped; without --save nothing is kept" : "stopped; go on with: train_gpt2 --resume " + run);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Trains a GPT-2 on text."};
  Options o;
  if (const auto code = read_options(app, o, argc, argv)) return *code;
  const std::string settings = app.config_to_str(true);
  const dsx::StopSignals signals;
  if (!o.dry) return dsx::launch(argc, argv, {.ranks = o.ranks}, [&](dsx::Session& session) { train(o, settings, session); });
  return dsx::launch(argc, argv, [&](dsx::Session&) {
    for (dsx::Extent stage = 0; stage < o.degrees.pipe; ++stage) {
      dsx::Session plan = dsx::Session::dry(stage * o.degrees.ranks() / o.degrees.pipe, o.degrees.ranks());
      train(o, settings, plan);
    }
  });
}
