// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Trains a GPT-2 on text, on one core or on many ranks.
///
///     train_gpt2 --data book.txt --steps 500 --save run --metrics run.jsonl
///     train_gpt2 --resume run
#include <dsx/train/gpt2_files.hpp>
#include <dsx/trainer_program.hpp>

#include "support/command_line.hpp"

namespace {

struct TrainedGpt2 {
  static constexpr const char* program = "train_gpt2";
  static dsx::Gpt2Shape start() { return {.width = 256, .heads = 8, .layers = 6}; }

  double dropout;
  dsx::GptConfig config;

  TrainedGpt2(const dsx::TrainerFlags<TrainedGpt2>& o, const std::optional<dsx::Tokenizer>& tokenizer, dsx::Extent vocabulary,
              const std::filesystem::path& from)
      : dropout{o.model.dropout} {
    dsx::Gpt2Shape shape = o.model;
    shape.attention_dropout = dropout, shape.vocabulary = vocabulary, shape.positions = o.feed.context;
    config = from.empty() ? dsx::config_of(shape, tokenizer) : dsx::config_for(from, o.feed.context, vocabulary);
  }
  dsx::Gpt2 model() const { return dsx::make_gpt2(dsx::shape_of(config, dropout)); }
  dsx::Extent length() const { return config.n_positions; }
  dsx::Extent vocabulary() const { return config.vocab_size; }
  void load(const std::filesystem::path& from, auto& weights) const { dsx::load_gpt2(from, weights); }
  void write_files(const std::filesystem::path& folder, const std::optional<dsx::Tokenizer>& tokenizer) const {
    dsx::write_gpt2_files(folder, config, tokenizer);
  }
  void check_export() const {}
  void write_model(const std::filesystem::path& folder, const auto& weights, const std::optional<dsx::Tokenizer>& tokenizer) const {
    dsx::export_gpt2(folder, weights, config, tokenizer);
  }
};

}  // namespace

int main(int argc, char** argv) { return dsx::run_trainer<TrainedGpt2>(CommandLine{"Trains a GPT-2 on text."}, argc, argv); }
