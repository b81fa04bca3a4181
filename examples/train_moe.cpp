// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Trains a language model with mixtures of experts, of Mixtral's kind, on text.
///
///     train_moe --data book.txt --experts 8 --top-k 2 --steps 500 --save run --metrics run.jsonl
///     train_moe --data book.txt --router topk --capacity-factor 1.25 --mesh data=2,tensor=2 --recipe zero2
///     train_moe --resume run --export exported          # loads with AutoModelForCausalLM.from_pretrained("exported")
#include <dsx/models/moe_options.hpp>
#include <dsx/train/llama_files.hpp>
#include <dsx/train/loads.hpp>
#include <dsx/trainer_program.hpp>

#include "support/command_line.hpp"

namespace {

struct TrainedMoe {
  static constexpr const char* program = "train_moe";
  static dsx::MoeOptions start() { return {}; }

  dsx::MoeOptions moe;
  dsx::LlamaConfig config;

  TrainedMoe(const dsx::TrainerFlags<TrainedMoe>& o, const std::optional<dsx::Tokenizer>& tokenizer, dsx::Extent vocabulary,
             const std::filesystem::path& from)
      : moe{o.model},
        config{from.empty() ? dsx::config_of(moe, vocabulary, o.feed.context, tokenizer ? tokenizer->end_of_text() : std::nullopt)
                            : dsx::config_for_llama(from, o.feed.context, vocabulary)} {
    if (!moe.dense()) moe.experts = config.num_local_experts, moe.top_k = config.num_experts_per_tok;
  }
  auto model() const { return dsx::make_moe(moe, config); }
  dsx::Extent length() const { return config.max_position_embeddings; }
  dsx::Extent vocabulary() const { return config.vocab_size; }
  void load(const std::filesystem::path& from, auto& weights) const {
    if (!std::filesystem::exists(from / "checkpoint.json")) dsx::check_export(moe);  // what can't leave as a Mixtral can't begin as one
    dsx::load_llama(from, weights);
  }
  void write_files(const std::filesystem::path& folder, const std::optional<dsx::Tokenizer>& tokenizer) const {
    dsx::write_llama_files(folder, config, tokenizer);
  }
  void check_export() const { dsx::check_export(moe); }
  void write_model(const std::filesystem::path& folder, const auto& weights, const std::optional<dsx::Tokenizer>& tokenizer) const {
    dsx::export_llama(folder, weights, config, tokenizer);
  }
  auto look(auto& weights) const {
    return [&weights](dsx::StepRecord& record) { record.routing = dsx::take_loads(weights); };
  }
};

}  // namespace

int main(int argc, char** argv) { return dsx::run_trainer<TrainedMoe>(CommandLine{"Trains a model with mixtures of experts on text."}, argc, argv); }
