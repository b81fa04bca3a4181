// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Weights of a Llama, Qwen2 or Mixtral from and to folders: checkpoints of dsx, and Hugging Face's config.json with one safetensors file or
/// shards.
///
///     const LlamaConfig config = read_llama_config(folder / "config.json");
///     Weights weights{mesh, make_llama(shape_of(config)), recipe};
///     load_llama(folder, weights);                  // of either kind
///     export_llama("out", weights, config);         // loads with AutoModelForCausalLM.from_pretrained("out")
#pragma once

#include <dsx/data/tokenizer.hpp>
#include <dsx/io/hf_llama.hpp>
#include <dsx/models/mixtral.hpp>
#include <dsx/train/checkpoint.hpp>
#include <dsx/train/hf_weights.hpp>

namespace dsx {

namespace detail {
inline constexpr std::string_view llama_head = "lm_head.weight", llama_table = "model.embed_tokens.weight",
                                  fused_experts = "model.layers.0.mlp.experts.gate_up_proj";
/// Older files carry frequencies, and some the tied head once more.
inline constexpr std::string_view llama_ignored[] = {"model.layers.{i}.self_attn.rotary_emb.inv_freq", llama_head};
}  // namespace detail

/// How a file lays out experts: one tensor for each matrix, or, as transformers 5 does in memory, a layer's in one.
enum class ExpertLayout : std::uint8_t { each, fused };

/// The names of Hugging Face of what the model declares.
template <class Weights>
std::vector<WeightName> llama_names(const Weights& weights, Extent blocks, ExpertLayout layout = ExpertLayout::each) {
  const auto& records = weights.records();
  const auto stack = std::max_element(records.begin(), records.end(), [](const auto& a, const auto& b) { return a.stack < b.stack; })->stack;
  const NameIndex indices[] = {{'i', blocks}, {'e', stack}};
  std::vector<WeightName> names = names_of(llama_weight_names, indices, weights);
  const bool fused = layout == ExpertLayout::fused;
  const auto table = fused ? std::span<const NamePattern>{fused_expert_weight_names} : std::span<const NamePattern>{expert_weight_names};
  for (WeightName& name : names_of(table, indices, weights)) names.push_back(std::move(name));
  return names;
}

/// Reads a Hugging Face folder, or a checkpoint of this model; every rank calls it. dsx-E629 if names don't fit, dsx-E626 if shapes don't.
template <class Weights>
void load_llama(const std::filesystem::path& folder, Weights& weights) {
  if (std::filesystem::exists(folder / "checkpoint.json")) return void(load_weights(folder, weights));
  const SafetensorsSet file{folder};
  const ExpertLayout layout = file.contains(detail::fused_experts) ? ExpertLayout::fused : ExpertLayout::each;
  const std::vector<WeightName> names = llama_names(weights, read_llama_config(folder / "config.json").num_hidden_layers, layout);
  const bool own_head = std::any_of(names.begin(), names.end(), [](const WeightName& name) { return name.theirs == detail::llama_head; });
  if (!own_head) check_tied(file, detail::llama_head, detail::llama_table);
  load_tensors(file, find_weights(file, names, {.ignored = detail::llama_ignored}), weights);
}

/// The config of a folder that is to be trained on sequences of `context` tokens of a `vocabulary`; dsx-E711, dsx-E712 if it can't.
inline LlamaConfig config_for_llama(const std::filesystem::path& folder, Extent context, Extent vocabulary) {
  const LlamaConfig c = read_llama_config(folder / "config.json");
  if (context > c.max_position_embeddings)
    fail<711>("a context of ", context, " tokens; the model in ", folder, " has ", c.max_position_embeddings, " positions");
  if (vocabulary > c.vocab_size) fail<712>("the data have a vocabulary of ", vocabulary, " tokens; the model in ", folder, " has ", c.vocab_size);
  return c;
}

/// What stands beside weights: config.json, and tokenizer.json if there is a tokenizer.
inline void write_llama_files(const std::filesystem::path& folder, const LlamaConfig& config, const std::optional<Tokenizer>& tokenizer) {
  write_llama_config(folder / "config.json", config);
  if (tokenizer) tokenizer->save(folder / "tokenizer.json");
}

/// Writes weights with Hugging Face's names and the config's element, and write_llama_files(); every rank calls it, the root writes.
template <class Weights>
void export_llama(const std::filesystem::path& folder, const Weights& weights, const LlamaConfig& config,
                  const std::optional<Tokenizer>& tokenizer = {}, const ShardOptions& shards = {},
                  ExpertLayout layout = ExpertLayout::each) {
  LlamaConfig written = config;
  written.dtype = config.dtype == Element::bf16 ? Element::bf16 : Element::f32;
  export_tensors(folder, llama_names(weights, config.num_hidden_layers, layout), weights, written.dtype, shards);
  if (!weights.mesh().session().is_root()) return;
  write_llama_files(folder, written, tokenizer);
}

}  // namespace dsx
