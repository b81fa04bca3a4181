// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a trainer's command line says of a run, but for its model's shape.
///
///     RunOptions run;
///     each_flag(run, shape, [&](const Flag& flag, auto& field) { ... });    // declares or reads each
#pragma once

#include <dsx/comm/launch.hpp>
#include <dsx/comm/mesh_text.hpp>
#include <dsx/core/flag.hpp>
#include <dsx/train/feed.hpp>
#include <dsx/train/fit.hpp>
#include <dsx/train/schedule.hpp>

namespace dsx {

struct RunOptions {
  CorpusOptions corpus{};
  FeedOptions feed{.batch = 16, .context = 128, .seed = 1};
  FitOptions fit{.steps = 1000, .eval_every = 100};
  CosineRate rate{.rate = 0, .warmup = 100};
  std::filesystem::path load, export_to, resume;
  std::string mesh, recipe, optimizer = "adamw", precision = "fp32";
  Extent eval_batches = 20, freeze_step = 200, ranks = 0, threads = 0, device_bytes = 0;
  double decay = 0.1, clip = 1;
  bool dry = false, list_recipes = false;
  Degrees degrees{};  // as settle_ranks() reads them
};

/// Reads the mesh. Without --ranks and without a launcher there are as many thread ranks as it needs.
inline void settle_ranks(RunOptions& o) {
  o.degrees = o.mesh.empty() ? Degrees{.data = std::max<Extent>(o.ranks, 1)} : parse_degrees(o.mesh);
  const auto environment = [](const char* name) -> const char* { return std::getenv(name); };
  if (o.ranks == 0 && choose_launch(0, environment).ranks == 1) o.ranks = o.degrees.ranks();
}

void each_flag(RunOptions& o, auto& shape, auto&& flag) {
  flag({"Data", "--data", "text files, folders of them, or one token file"}, o.corpus.data);
  flag({"Data", "--tokenizer", "folder or tokenizer.json; none: one is trained on the text"}, o.corpus.tokenizer);
  flag({"Data", "--vocabulary", "tokens of a trained tokenizer"}, o.corpus.vocabulary);
  flag({"Data", "--block-lines", "every 20th block of so many lines is held out for validation", 1}, o.corpus.split.lines);
  flag({"Data", "--cache", "folder of tokenised texts and trained tokenizers"}, o.corpus.cache);
  each_flag(shape, flag);
  flag({"Model", "--context", "tokens of a sequence", 1}, o.feed.context);
  flag({.group = "Model", .name = "--load", .text = "start from a Hugging Face model, or from a checkpoint's weights", .kept = false}, o.load);
  flag({.group = "Model", .name = "--export", .text = "write a Hugging Face model at the end", .kept = false}, o.export_to);
  flag({"Training", "--batch", "sequences of a step, on all ranks together", 1}, o.feed.batch);
  flag({"Training", "--micro-batches", "parts of a rank's batch, one after the other", 1}, o.feed.micro_batches);
  flag({"Training", "--steps", "steps of the whole run", 1}, o.fit.steps);
  flag({.group = "Training", .name = "--optimizer", .text = "rule of the update", .choices = {"adamw", "sgd", "muon", "onebit_adam"}}, o.optimizer);
  flag({"Training", "--freeze-step", "steps of onebit_adam that are exact, before its second moment freezes; a fifth of the run is usual", 1},
       o.freeze_step);
  flag({"Training", "--rate", "highest learning rate; 0: the optimizer's own", 0}, o.rate.rate);
  flag({"Training", "--warmup", "steps of linear warm-up"}, o.rate.warmup);
  flag({"Training", "--min-rate", "learning rate at the end of the cosine", 0}, o.rate.least);
  flag({"Training", "--decay", "weight decay", 0}, o.decay);
  flag({"Training", "--clip", "largest norm of the gradient; 0: none", 0}, o.clip);
  flag({.group = "Training", .name = "--precision", .text = "of values and weights; master weights stay fp32", .choices = {"fp32", "bf16"}},
       o.precision);
  flag({"Training", "--seed", "of weights, order of data, dropout and samples"}, o.feed.seed);
  flag({"Ranks", "--ranks", "thread ranks; 0: as the mesh says"}, o.ranks);
  flag({"Ranks", "--threads", "OpenMP threads a rank; 0: processors / ranks"}, o.threads);
  flag({"Ranks", "--device-bytes", "the most bytes of a rank's device; what rests elsewhere doesn't count; 0: no bound"}, o.device_bytes);
  flag({"Ranks", "--mesh", "such as data=2,inner=1,tensor=2,pipe=2,tokens=split"}, o.mesh);
  flag({"Ranks", "--recipe", "such as zero2+1f1b; see --list-recipes"}, o.recipe);
  flag({.group = "Ranks", .name = "--list-recipes", .text = "print the recipes and end", .kept = false}, o.list_recipes);
  flag({.group = "Ranks", .name = "--dry", .text = "print what the run will need (memory, computation, traffic), and end", .kept = false}, o.dry);
  flag({"Run", "--eval-every", "steps between evaluations; 0: none"}, o.fit.eval_every);
  flag({"Run", "--eval-batches", "batches of an evaluation; 0: all that is held out"}, o.eval_batches);
  flag({"Run", "--sample-every", "steps between samples of text; 0: none"}, o.fit.sample_every);
  flag({.group = "Run", .name = "--save", .text = "folder of the run's checkpoints; of a resumed run: where it lies", .kept = false}, o.fit.save);
  flag({"Run", "--save-every", "steps between checkpoints; 0: only at the end"}, o.fit.save_every);
  flag({"Run", "--keep", "newest checkpoints that are kept", 1}, o.fit.keep);
  flag({"Run", "--metrics", "file of JSON lines, one a step; the curve is drawn beside it"}, o.fit.metrics);
  flag({.group = "Run", .name = "--resume", .text = "go on with this run, or from this checkpoint; its flags hold but for those given now",
        .kept = false}, o.resume);
}

}  // namespace dsx
