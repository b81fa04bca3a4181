// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// GPT-2 weights from and to folders: checkpoints of dsx, and Hugging Face's config.json with model.safetensors.
///
///     const GptConfig config = read_gpt2_config(folder / "config.json");
///     Weights weights{mesh, make_gpt2(shape_of(config)), recipe};
///     load_gpt2(folder, weights);                  // of either kind
///     export_gpt2("out", weights, config);         // loads with GPT2LMHeadModel.from_pretrained("out")
#pragma once

#include <dsx/data/tokenizer.hpp>
#include <dsx/io/hf_gpt2.hpp>
#include <dsx/models/gpt2.hpp>
#include <dsx/train/checkpoint.hpp>
#include <dsx/train/checkpoints.hpp>
#include <dsx/train/hf_weights.hpp>

namespace dsx {

/// `dropout`: in all three places.
inline Gpt2Shape shape_of(const GptConfig& c, double dropout = 0) {
  return {.vocabulary = c.vocab_size, .positions = c.n_positions, .width = c.n_embd, .heads = c.n_head, .layers = c.n_layer,
          .hidden = c.n_inner.value_or(0), .dropout = dropout, .attention_dropout = dropout, .epsilon = c.layer_norm_epsilon,
          .gelu = c.activation == GeluForm::tanh ? Gelu::tanh : Gelu::erf};
}
inline GptConfig config_of(const Gpt2Shape& s, const std::optional<Tokenizer>& tokenizer = {}) {
  GptConfig c{.vocab_size = s.vocabulary, .n_positions = s.positions, .n_embd = s.width, .n_layer = s.layers, .n_head = s.heads};
  if (s.hidden) c.n_inner = s.hidden;
  c.layer_norm_epsilon = s.epsilon, c.activation = s.gelu == Gelu::tanh ? GeluForm::tanh : GeluForm::erf;
  c.dropout_residual = c.dropout_embedding = s.dropout, c.dropout_attention = s.attention_dropout;
  if (tokenizer) c.bos_token_id = c.eos_token_id = tokenizer->end_of_text();
  return c;
}

/// The config of a folder that is to be trained on sequences of `context` tokens of a `vocabulary`; dsx-E711, dsx-E712 if it can't.
inline GptConfig config_for(const std::filesystem::path& folder, Extent context, Extent vocabulary) {
  const GptConfig c = read_gpt2_config(folder / "config.json");
  if (context > c.n_positions) fail<711>("a context of ", context, " tokens; the model in ", folder, " has ", c.n_positions, " positions");
  if (vocabulary > c.vocab_size) fail<712>("the data have a vocabulary of ", vocabulary, " tokens; the model in ", folder, " has ", c.vocab_size);
  return c;
}

namespace detail {
inline constexpr std::string_view gpt2_prefix = "transformer.", gpt2_head = "lm_head.weight", gpt2_table = "wte.weight";
/// The hub's files carry causal masks, and some the tied head once more.
inline constexpr std::string_view gpt2_ignored[] = {"h.{i}.attn.bias", "h.{i}.attn.masked_bias", gpt2_head};
}  // namespace detail

/// Reads a Hugging Face folder, or a checkpoint of this model; every rank calls it. dsx-E629 if names don't fit, dsx-E626 if shapes don't.
template <class Weights>
void load_gpt2(const std::filesystem::path& folder, Weights& weights) {
  if (std::filesystem::exists(folder / "checkpoint.json")) return void(load_weights(folder, weights));
  const GptConfig config = read_gpt2_config(folder / "config.json");
  const SafetensorsSet file{folder};
  const NameIndex layers[] = {{'i', config.n_layer}};
  for (const std::string_view prefix : {std::string_view{}, detail::gpt2_prefix})
    if (file.contains(detail::gpt2_head) && file.contains(concat(prefix, detail::gpt2_table)))
      check_tied(file, detail::gpt2_head, concat(prefix, detail::gpt2_table));
  const WeightRules rules{.prefix = detail::gpt2_prefix, .ignored = detail::gpt2_ignored};
  load_tensors(file, find_weights(file, expand(gpt2_weight_names, layers), rules), weights);
}

/// What stands beside weights: config.json, and tokenizer.json if there is a tokenizer.
inline void write_gpt2_files(const std::filesystem::path& folder, const GptConfig& config, const std::optional<Tokenizer>& tokenizer) {
  write_gpt2_config(folder / "config.json", config);
  if (tokenizer) tokenizer->save(folder / "tokenizer.json");
}

/// Writes model.safetensors with Hugging Face's names and the config's element, and write_gpt2_files(); every rank calls it, the root
/// writes.
template <class Weights>
void export_gpt2(const std::filesystem::path& folder, const Weights& weights, const GptConfig& config,
                 const std::optional<Tokenizer>& tokenizer = {}) {
  const NameIndex layers[] = {{'i', config.n_layer}};
  const Element element = config.dtype == Element::bf16 ? Element::bf16 : Element::f32;
  std::vector<WeightName> names = expand(gpt2_weight_names, layers);
  for (WeightName& name : names) name.theirs = concat(detail::gpt2_prefix, name.theirs);
  export_tensors(folder, names, weights, element);
  if (!weights.mesh().session().is_root()) return;
  GptConfig written = config;
  written.dtype = element;
  write_gpt2_files(folder, written, tokenizer);
}

}  // namespace dsx
