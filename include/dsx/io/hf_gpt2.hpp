// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The config.json of a Hugging Face GPT-2, in the hub's spelling and in that of transformers 5.
///
///     GptConfig config = read_gpt2_config("gpt2/config.json");
///     config.dropout_attention = 0;
///     write_gpt2_config("out/config.json", config);      // loads with GPT2LMHeadModel.from_pretrained("out")
#pragma once

#include <dsx/core/element.hpp>
#include <dsx/io/json.hpp>

#include <filesystem>
#include <optional>

namespace dsx {

/// Which form of GELU: with tanh ("gelu_new"), as GPT-2 was trained, or with erf ("gelu").
enum class GeluForm : std::uint8_t { tanh, erf };

/// Defaults are GPT-2's, as transformers has them.
struct GptConfig {
  Extent vocab_size = 50257, n_positions = 1024, n_embd = 768, n_layer = 12, n_head = 12;
  std::optional<Extent> n_inner = {};  ///< none: 4 n_embd
  double layer_norm_epsilon = 1e-5, initializer_range = 0.02;
  GeluForm activation = GeluForm::tanh;
  double dropout_residual = 0.1, dropout_embedding = 0.1, dropout_attention = 0.1;
  bool tie_word_embeddings = true;
  Element dtype = Element::f32;
  std::optional<Extent> bos_token_id = {}, eos_token_id = {};

  Extent inner() const { return n_inner.value_or(4 * n_embd); }
  friend bool operator==(const GptConfig&, const GptConfig&) = default;
};

/// dsx-E635 if it is no GPT-2, dsx-E636 if a number is missing or absurd, dsx-E637 if it asks for something else than GPT-2
/// computes, dsx-E307 if the heads don't divide the width.
GptConfig parse_gpt2_config(const Json& config);
GptConfig read_gpt2_config(const std::filesystem::path& file);

Json gpt2_config_json(const GptConfig& config);
void write_gpt2_config(const std::filesystem::path& file, const GptConfig& config);

}  // namespace dsx
