// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The flags of train_gpt2: a table, most of whose lines name a field of dsx's own options.
///
///     Options o;
///     declare_flags(app, o);
#pragma once

#include <dsx/comm/mesh_text.hpp>
#include <dsx/data/corpus.hpp>
#include <dsx/models/gpt2.hpp>
#include <dsx/train/feed.hpp>
#include <dsx/train/fit.hpp>
#include <dsx/train/schedule.hpp>

#include <CLI/CLI.hpp>

struct Options {
  dsx::CorpusOptions corpus{};
  dsx::Gpt2Shape model{.width = 256, .heads = 8, .layers = 6};
  dsx::FeedOptions feed{.batch = 16, .context = 128, .seed = 1};
  dsx::FitOptions fit{.steps = 1000, .eval_every = 100};
  dsx::CosineRate rate{.rate = 0, .warmup = 100};
  std::filesystem::path load, export_to, resume;
  std::string mesh, recipe, optimizer = "adamw", precision = "fp32";
  dsx::Extent eval_batches = 20, ranks = 0, threads = 0;
  double decay = 0.1, clip = 1;
  bool dry = false, list_recipes = false;
  dsx::Degrees degrees{};
};

inline void declare_flags(CLI::App& app, Options& o) {
  const CLI::Validator absolute{[](std::string& path) { return path = path.empty() ? path : std::filesystem::absolute(path).string(), ""; }, ""};
  const auto number = [](double low, double high = 1e30) {
    return CLI::Validator{[=](const std::string& text) {
      char* end = nullptr;
      const double x = std::strtod(text.c_str(), &end);
      return x >= low && x <= high && *end == 0 ? "" : dsx::concat(text, " is no number from ", low, high < 1e30 ? dsx::concat(" to ", high) : " up");
    }, ""};
  };
  app.option_defaults()->always_capture_default()->group("Data");
  app.add_option("--data", o.corpus.data, "text files, folders of them, or one token file")->transform(absolute);
  app.add_option("--tokenizer", o.corpus.tokenizer, "folder or tokenizer.json; none: one is trained on the text")->transform(absolute);
  app.add_option("--vocabulary", o.corpus.vocabulary, "tokens of a trained tokenizer");
  app.add_option("--block-lines", o.corpus.split.lines, "every 20th block of so many lines is held out for validation")->check(number(1));
  app.add_option("--cache", o.corpus.cache, "folder of tokenised texts and trained tokenizers")->transform(absolute);
  app.option_defaults()->group("Model");
  app.add_option("--layers", o.model.layers, "blocks")->check(number(1));
  app.add_option("--width", o.model.width, "channels of the residual stream")->check(number(1));
  app.add_option("--heads", o.model.heads, "heads of attention")->check(number(1));
  app.add_option("--context", o.feed.context, "tokens of a sequence")->check(number(1));
  app.add_option("--dropout", o.model.dropout, "rate: of embeddings, attention's probabilities and what joins the stream")->check(number(0, 0.99));
  app.add_option("--load", o.load, "start from a Hugging Face GPT-2, or from a checkpoint's weights")->configurable(false);
  app.add_option("--export", o.export_to, "write a Hugging Face GPT-2 at the end")->configurable(false);
  app.option_defaults()->group("Training");
  app.add_option("--batch", o.feed.batch, "sequences of a step, on all ranks together")->check(number(1));
  app.add_option("--micro-batches", o.feed.micro_batches, "parts of a rank's batch, one after the other")->check(number(1));
  app.add_option("--steps", o.fit.steps, "steps of the whole run")->check(number(1));
  app.add_option("--optimizer", o.optimizer, "rule of the update")->check(CLI::IsMember({"adamw", "sgd", "muon"}));
  app.add_option("--rate", o.rate.rate, "highest learning rate; 0: the optimizer's own")->check(number(0));
  app.add_option("--warmup", o.rate.warmup, "steps of linear warm-up");
  app.add_option("--min-rate", o.rate.least, "learning rate at the end of the cosine")->check(number(0));
  app.add_option("--decay", o.decay, "weight decay")->check(number(0));
  app.add_option("--clip", o.clip, "largest norm of the gradient; 0: none")->check(number(0));
  app.add_option("--precision", o.precision, "of values and weights; master weights stay fp32")->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--seed", o.feed.seed, "of weights, order of data, dropout and samples");
  app.option_defaults()->group("Ranks");
  app.add_option("--ranks", o.ranks, "thread ranks; 0: as the mesh says");
  app.add_option("--threads", o.threads, "OpenMP threads a rank; 0: processors / ranks");
  app.add_option("--mesh", o.mesh, "such as data=2,inner=1,tensor=2,pipe=2,tokens=split");
  app.add_option("--recipe", o.recipe, "such as zero2+1f1b; see --list-recipes");
  app.add_flag("--list-recipes", o.list_recipes, "print the recipes and end")->configurable(false);
  app.add_flag("--dry", o.dry, "print what the run will need (memory, computation, traffic), and end")->configurable(false);
  app.option_defaults()->group("Run");
  app.add_option("--eval-every", o.fit.eval_every, "steps between evaluations; 0: none");
  app.add_option("--eval-batches", o.eval_batches, "batches of an evaluation; 0: all that is held out");
  app.add_option("--sample-every", o.fit.sample_every, "steps between samples of text; 0: none");
  app.add_option("--save", o.fit.save, "folder of the run's checkpoints; of a resumed run: where it lies")->transform(absolute)->configurable(false);
  app.add_option("--save-every", o.fit.save_every, "steps between checkpoints; 0: only at the end");
  app.add_option("--keep", o.fit.keep, "newest checkpoints that are kept")->check(number(1));
  app.add_option("--metrics", o.fit.metrics, "file of JSON lines, one a step; the curve is drawn beside it")->transform(absolute);
  app.add_option("--resume", o.resume, "go on with this run, or from this checkpoint; its flags hold but for those given now")->configurable(false);
}
