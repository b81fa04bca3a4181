// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The flags of train_gpt2.
#pragma once

#include <dsx/comm/mesh_text.hpp>
#include <dsx/data/corpus.hpp>
#include <dsx/recipes.hpp>
#include <dsx/train/checkpoints.hpp>

#include <CLI/CLI.hpp>

struct Options {
  std::vector<std::string> data;
  std::string tokenizer, load, export_to, mesh, recipe, save, resume, metrics;
  std::string optimizer = "adamw", precision = "fp32", cache = dsx::default_cache().string();
  dsx::Extent vocabulary = 4096, block_lines = 50;
  dsx::Extent layers = 6, width = 256, heads = 8, context = 128, batch = 16, micro_batches = 1;
  dsx::Extent steps = 1000, warmup = 100, ranks = 0, threads = 0, seed = 1;
  dsx::Extent eval_every = 100, eval_batches = 20, sample_every = 0, save_every = 0, keep = 3;
  double rate = 0, min_rate = 0, decay = 0.1, clip = 1, dropout = 0;
  bool dry = false, list_recipes = false;
  dsx::Degrees degrees{};
};

/// A resumed run takes its flags from the checkpoint, but for those given now. A value is the exit code.
inline std::optional<int> read_options(CLI::App& app, Options& o, int argc, char** argv) {
  const auto absolute = [](std::string path) { return path.empty() ? path : std::filesystem::absolute(path).string(); };
  app.option_defaults()->always_capture_default();
  app.add_option("--data", o.data, "text files, folders of them, or one token file")->transform(absolute);
  app.add_option("--tokenizer", o.tokenizer, "folder or tokenizer.json; none: one is trained on the text")->transform(absolute);
  app.add_option("--vocabulary", o.vocabulary, "tokens of a trained tokenizer");
  app.add_option("--block-lines", o.block_lines, "every 20th block of so many lines is held out for validation");
  app.add_option("--cache", o.cache, "folder of tokenised texts and trained tokenizers");
  app.add_option("--load", o.load, "start from a Hugging Face GPT-2 or a checkpoint")->configurable(false);
  app.add_option("--export", o.export_to, "write a Hugging Face GPT-2 at the end")->configurable(false);
  app.add_option("--layers", o.layers, "blocks");
  app.add_option("--width", o.width, "channels of the residual stream");
  app.add_option("--heads", o.heads, "heads of attention");
  app.add_option("--context", o.context, "tokens of a sequence");
  app.add_option("--batch", o.batch, "sequences of a step, on all ranks together");
  app.add_option("--micro-batches", o.micro_batches, "parts of a rank's batch, one after the other");
  app.add_option("--steps", o.steps, "steps of the whole run");
  app.add_option("--rate", o.rate, "highest learning rate; 0: the optimizer's own");
  app.add_option("--warmup", o.warmup, "steps of linear warm-up");
  app.add_option("--min-rate", o.min_rate, "learning rate at the end of the cosine");
  app.add_option("--decay", o.decay, "weight decay");
  app.add_option("--clip", o.clip, "largest norm of the gradient; 0: none");
  app.add_option("--dropout", o.dropout, "rate of dropout")->check(CLI::Range(0.0, 0.99));
  app.add_option("--optimizer", o.optimizer)->check(CLI::IsMember({"adamw", "sgd", "muon"}));
  app.add_option("--precision", o.precision)->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--ranks", o.ranks, "thread ranks; 0: as the mesh says");
  app.add_option("--threads", o.threads, "OpenMP threads a rank; 0: processors / ranks");
  app.add_option("--mesh", o.mesh, "such as data=2,inner=1,tensor=2,pipe=2,tokens=split");
  app.add_option("--recipe", o.recipe, "such as zero2+1f1b; see --list-recipes");
  app.add_flag("--list-recipes", o.list_recipes, "print the recipes and end")->configurable(false);
  app.add_option("--seed", o.seed, "of weights, order of data, dropout and samples");
  app.add_option("--eval-every", o.eval_every, "steps between evaluations; 0: none");
  app.add_option("--eval-batches", o.eval_batches, "batches of an evaluation; 0: all that is held out");
  app.add_option("--sample-every", o.sample_every, "steps between samples of text; 0: none");
  app.add_option("--save-every", o.save_every, "steps between checkpoints; 0: only at the end");
  app.add_option("--keep", o.keep, "newest checkpoints that are kept")->check(CLI::PositiveNumber);
  app.add_option("--save", o.save, "folder of the run's checkpoints")->transform(absolute);
  app.add_option("--resume", o.resume, "go on with this run, or from this checkpoint")->configurable(false);
  app.add_option("--metrics", o.metrics, "file of JSON lines, one a step; the curve is drawn beside it")->transform(absolute);
  app.add_flag("--dry", o.dry, "print what the run will need, and end")->configurable(false);
  try {
    app.parse(argc, argv);
    if (o.list_recipes) return std::fputs(dsx::list_of_recipes().c_str(), stdout), 0;
    if (!o.resume.empty()) {
      app.set_config("--config", (dsx::newest_checkpoint(o.resume) / "options.ini").string(), "flags of the run that is resumed");
      app.parse(argc, argv);
    }
    if (o.data.empty() && !o.dry) throw CLI::RequiredError{"--data"};
    o.degrees = o.mesh.empty() ? dsx::Degrees{.data = std::max<dsx::Extent>(o.ranks, 1)} : dsx::parse_degrees(o.mesh);
    const auto environment = [](const char* name) -> const char* { return std::getenv(name); };
    if (o.ranks == 0 && dsx::choose_launch(0, environment).ranks == 1) o.ranks = o.degrees.ranks();
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 1;
  } catch (const std::exception& e) {
    return std::fprintf(stderr, "%s\n", e.what()), 1;
  }
  return {};
}
