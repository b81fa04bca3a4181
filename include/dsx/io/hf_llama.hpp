// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The config.json of a Hugging Face Llama, Qwen2 or Mixtral, in the hub's spelling and in that of transformers 5.
///
///     LlamaConfig config = read_llama_config("llama/config.json");
///     config.dtype = Element::bf16;
///     write_llama_config("out/config.json", config);      // loads with AutoModelForCausalLM.from_pretrained("out")
#pragma once

#include <dsx/core/element.hpp>
#include <dsx/core/rope.hpp>
#include <dsx/io/json.hpp>

#include <filesystem>
#include <optional>

namespace dsx {

struct LlamaConfig {
  /// Qwen2 has biases on queries, keys and values; Mixtral's feed-forward layers are mixtures of experts.
  enum class Family : std::uint8_t { llama, qwen2, mixtral };

  Family family = Family::llama;
  Extent vocab_size = 32000, max_position_embeddings = 2048, hidden_size = 4096, intermediate_size = 11008;
  Extent num_hidden_layers = 32, num_attention_heads = 32, num_key_value_heads = 32, head_dim = 128;
  double rms_norm_eps = 1e-6, initializer_range = 0.02, attention_dropout = 0;
  Rope rope = {.in_float = true};  ///< a dynamic base as it is up to max_position_embeddings
  bool tie_word_embeddings = false;
  Element dtype = Element::f32;
  std::optional<Extent> bos_token_id = {}, pad_token_id = {};
  std::vector<Extent> eos_token_ids = {};  ///< any of them ends a text
  Extent num_local_experts = 0, num_experts_per_tok = 0;  ///< of Mixtral
  double router_aux_loss_coef = 0.001, router_jitter_noise = 0;
  bool output_router_logits = false;  ///< whether Hugging Face adds the balance loss to a model's

  friend bool operator==(const LlamaConfig&, const LlamaConfig&) = default;
};

/// dsx-E635 if it is another model's, dsx-E636 if a number is missing or absurd, dsx-E637 if it asks for something else than these models
/// compute, dsx-E307 and dsx-E330 if heads don't divide, dsx-E347 if a token is to go to more experts than there are.
LlamaConfig parse_llama_config(const Json& config);
LlamaConfig read_llama_config(const std::filesystem::path& file);

/// The tokens that end a text of a folder's model, whatever its architecture: eos_token_id of generation_config.json if that says it, else of
/// config.json; a number or a list.
std::vector<int> read_end_tokens(const std::filesystem::path& folder);

Json llama_config_json(const LlamaConfig& config);
void write_llama_config(const std::filesystem::path& file, const LlamaConfig& config);

}  // namespace dsx
