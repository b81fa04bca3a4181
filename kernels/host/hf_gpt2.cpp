// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Reading and writing of Hugging Face's GPT-2 configuration, behind io/hf_gpt2.hpp.
///
///     {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "torch_dtype": "float32", ...}     // the hub
///     {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "dtype": "float32", ...}           // transformers 5
#include "hf_config.hpp"

#include <dsx/io/atomic_file.hpp>
#include <dsx/io/hf_gpt2.hpp>

namespace dsx {

using namespace hf;

namespace {

GeluForm activation_at(const Json& config) {
  const std::string name = config.text("activation_function", "gelu_new");
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return GeluForm::tanh;
  if (name == "gelu") return GeluForm::erf;
  fail<637>(config["activation_function"].where(), " is \"", name, "\"; dsx's GPT-2 knows gelu_new and gelu");
}

}  // namespace

GptConfig parse_gpt2_config(const Json& json) {
  const std::string type = json.text("model_type", "");
  if (type != "gpt2") fail<635>(json.where(), type.empty() ? " has no model_type" : concat(" has the model_type \"", type, '"'), ", not \"gpt2\"");
  expect(json, "scale_attn_weights", true, "GPT-2");
  expect(json, "scale_attn_by_inverse_layer_idx", false, "GPT-2");
  expect(json, "add_cross_attention", false, "GPT-2");

  GptConfig config;
  config.vocab_size = size_at(json, {"vocab_size"});
  config.n_positions = size_at(json, {"n_positions", "max_position_embeddings", "n_ctx"});
  config.n_embd = size_at(json, {"n_embd", "hidden_size"});
  config.n_layer = size_at(json, {"n_layer", "num_hidden_layers"});
  config.n_head = size_at(json, {"n_head", "num_attention_heads"});
  if (json.contains("n_inner") && !json["n_inner"].is_null()) config.n_inner = size_at(json, {"n_inner"});
  config.layer_norm_epsilon = real_at(json, "layer_norm_epsilon", config.layer_norm_epsilon, 0, 1);
  config.initializer_range = real_at(json, "initializer_range", config.initializer_range, 0, 1e3);
  config.activation = activation_at(json);
  config.dropout_residual = real_at(json, "resid_pdrop", config.dropout_residual, 0, 1);
  config.dropout_embedding = real_at(json, "embd_pdrop", config.dropout_embedding, 0, 1);
  config.dropout_attention = real_at(json, "attn_pdrop", config.dropout_attention, 0, 1);
  config.tie_word_embeddings = json.boolean("tie_word_embeddings", true);
  config.dtype = dtype_at(json);
  config.bos_token_id = token_at(json, "bos_token_id");
  config.eos_token_id = token_at(json, "eos_token_id");
  check_heads(config.n_embd, config.n_head, json.where());
  return config;
}

GptConfig read_gpt2_config(const std::filesystem::path& file) { return parse_gpt2_config(Json::parse(read_file(file), file.string())); }

Json gpt2_config_json(const GptConfig& c) {
  if (c.n_head == 0) fail<636>("a GPT-2 of 0 heads can't be written");
  check_heads(c.n_embd, c.n_head, "a GPT-2 to be written");
  const std::string_view dtype = dtype_name(c.dtype, "GPT-2");
  // Sorted, and with all that transformers writes for such a model, so that its own file and ours can be compared.
  return Json::object({{"activation_function", c.activation == GeluForm::tanh ? "gelu_new" : "gelu"},
                       {"add_cross_attention", false},
                       {"architectures", Json::array({"GPT2LMHeadModel"})},
                       {"attn_pdrop", c.dropout_attention},
                       {"bos_token_id", or_null(c.bos_token_id)},
                       {"dtype", dtype},
                       {"embd_pdrop", c.dropout_embedding},
                       {"eos_token_id", or_null(c.eos_token_id)},
                       {"initializer_range", c.initializer_range},
                       {"layer_norm_epsilon", c.layer_norm_epsilon},
                       {"model_type", "gpt2"},
                       {"n_embd", c.n_embd},
                       {"n_head", c.n_head},
                       {"n_inner", or_null(c.n_inner)},
                       {"n_layer", c.n_layer},
                       {"n_positions", c.n_positions},
                       {"pad_token_id", nullptr},
                       {"reorder_and_upcast_attn", false},
                       {"resid_pdrop", c.dropout_residual},
                       {"scale_attn_by_inverse_layer_idx", false},
                       {"scale_attn_weights", true},
                       {"summary_activation", nullptr},
                       {"summary_first_dropout", 0.1},
                       {"summary_proj_to_labels", true},
                       {"summary_type", "cls_index"},
                       {"summary_use_proj", true},
                       {"tie_word_embeddings", c.tie_word_embeddings},
                       {"use_cache", true},
                       {"vocab_size", c.vocab_size}});
}

void write_gpt2_config(const std::filesystem::path& file, const GptConfig& config) { write_file(file, gpt2_config_json(config).dump(2) + '\n'); }

}  // namespace dsx
