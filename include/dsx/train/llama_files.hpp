// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Weights of a Llama or Qwen2 from and to folders: checkpoints of dsx, and Hugging Face's config.json with one safetensors file or shards.
///
///     const LlamaConfig config = read_llama_config(folder / "config.json");
///     Weights weights{mesh, make_llama(shape_of(config)), recipe};
///     load_llama(folder, weights);                  // of either kind
///     export_llama("out", weights, config);         // loads with AutoModelForCausalLM.from_pretrained("out")
#pragma once

#include <dsx/data/tokenizer.hpp>
#include <dsx/io/hf_llama.hpp>
#include <dsx/models/llama.hpp>
#include <dsx/train/checkpoint.hpp>
#include <dsx/train/hf_weights.hpp>

namespace dsx {

inline LlamaShape shape_of(const LlamaConfig& c) {
  return {.vocabulary = c.vocab_size,
          .width = c.hidden_size,
          .heads = c.num_attention_heads,
          .key_value_heads = c.num_key_value_heads,
          .head_dim = c.head_dim,
          .layers = c.num_hidden_layers,
          .hidden = c.intermediate_size,
          .epsilon = c.rms_norm_eps,
          .rope = c.rope,
          .tied = c.tie_word_embeddings,
          .attention_dropout = c.attention_dropout};
}

namespace detail {
inline constexpr std::string_view llama_head = "lm_head.weight", llama_table = "model.embed_tokens.weight";
/// Older files carry frequencies, and some the tied head once more.
inline constexpr std::string_view llama_ignored[] = {"model.layers.{i}.self_attn.rotary_emb.inv_freq", llama_head};
}  // namespace detail

/// The names of Hugging Face of what the model declares.
template <class Weights>
std::vector<WeightName> llama_names(const Weights& weights, Extent blocks) {
  const NameIndex layers[] = {{'i', blocks}};
  return names_of(llama_weight_names, layers, weights);
}

/// Reads a Hugging Face folder, or a checkpoint of this model; every rank calls it. dsx-E629 if names don't fit, dsx-E626 if shapes don't.
template <class Weights>
void load_llama(const std::filesystem::path& folder, Weights& weights) {
  if (std::filesystem::exists(folder / "checkpoint.json")) return void(load_weights(folder, weights));
  const SafetensorsSet file{folder};
  const std::vector<WeightName> names = llama_names(weights, read_llama_config(folder / "config.json").num_hidden_layers);
  const bool own_head = std::any_of(names.begin(), names.end(), [](const WeightName& name) { return name.theirs == detail::llama_head; });
  if (!own_head) check_tied(file, detail::llama_head, detail::llama_table);
  load_tensors(file, find_weights(file, names, {.ignored = detail::llama_ignored}), weights);
}

/// Writes weights with Hugging Face's names and the config's element, config.json, and tokenizer.json if there is a tokenizer; every rank
/// calls it, the root writes.
template <class Weights>
void export_llama(const std::filesystem::path& folder, const Weights& weights, const LlamaConfig& config,
                  const std::optional<Tokenizer>& tokenizer = {}, const ShardOptions& shards = {}) {
  LlamaConfig written = config;
  written.dtype = config.dtype == Element::bf16 ? Element::bf16 : Element::f32;
  export_tensors(folder, llama_names(weights, config.num_hidden_layers), weights, written.dtype, shards);
  if (!weights.mesh().session().is_root()) return;
  write_llama_config(folder / "config.json", written);
  if (tokenizer) tokenizer->save(folder / "tokenizer.json");
}

}  // namespace dsx
