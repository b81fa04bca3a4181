// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The config.json of a Hugging Face Llama or Qwen2, in the hub's spelling and in that of transformers 5.
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
  /// Qwen2 has biases on queries, keys and values.
  enum class Family : std::uint8_t { llama, qwen2 };

  Family family = Family::llama;
  Extent vocab_size = 32000, max_position_embeddings = 2048, hidden_size = 4096, intermediate_size = 11008;
  Extent num_hidden_layers = 32, num_attention_heads = 32, num_key_value_heads = 32, head_dim = 128;
  double rms_norm_eps = 1e-6, initializer_range = 0.02, attention_dropout = 0;
  Rope rope = {.in_float = true};  ///< a dynamic base as it is up to max_position_embeddings
  bool tie_word_embeddings = false;
  Element dtype = Element::f32;
  std::optional<Extent> bos_token_id = {}, pad_token_id = {};
  std::vector<Extent> eos_token_ids = {};  ///< any of them ends a text

  friend bool operator==(const LlamaConfig&, const LlamaConfig&) = default;
};

/// dsx-E635 if it is neither, dsx-E636 if a number is missing or absurd, dsx-E637 if it asks for something else than Llama or Qwen2
/// computes, dsx-E307 and dsx-E330 if heads don't divide.
LlamaConfig parse_llama_config(const Json& config);
LlamaConfig read_llama_config(const std::filesystem::path& file);

Json llama_config_json(const LlamaConfig& config);
void write_llama_config(const std::filesystem::path& file, const LlamaConfig& config);

}  // namespace dsx
