// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Hugging Face's GPT-2 configuration: both spellings, the refusals, and what transformers wrote written again.
#include "io_support.hpp"

#include <dsx/io/atomic_file.hpp>
#include <dsx/io/hf_gpt2.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;
namespace fs = std::filesystem;

namespace {

/// The hub's gpt2 with some members replaced or, if the value is "-", left out.
Json hub(const std::vector<std::pair<std::string, std::string>>& changes = {}) {
  std::vector<std::pair<std::string, std::string>> members{{"activation_function", "\"gelu_new\""},
                                                           {"architectures", "[\"GPT2LMHeadModel\"]"},
                                                           {"attn_pdrop", "0.1"},
                                                           {"bos_token_id", "50256"},
                                                           {"embd_pdrop", "0.1"},
                                                           {"eos_token_id", "50256"},
                                                           {"initializer_range", "0.02"},
                                                           {"layer_norm_epsilon", "1e-05"},
                                                           {"model_type", "\"gpt2\""},
                                                           {"n_ctx", "1024"},
                                                           {"n_embd", "768"},
                                                           {"n_head", "12"},
                                                           {"n_layer", "12"},
                                                           {"n_positions", "1024"},
                                                           {"resid_pdrop", "0.1"},
                                                           {"vocab_size", "50257"}};
  for (const auto& [key, value] : changes) {
    std::erase_if(members, [&](const auto& member) { return member.first == key; });
    if (value != "-") members.emplace_back(key, value);
  }
  std::string text;
  for (const auto& [key, value] : members) text += (text.empty() ? "{\"" : ",\"") + key + "\":" + value;
  return Json::parse(text + "}", "config.json");
}

Refusal refused(const std::vector<std::pair<std::string, std::string>>& changes) {
  return error_of([&] { parse_gpt2_config(hub(changes)); });
}

}  // namespace

TEST_CASE("a configuration of transformers 5 is read, and written as it was") {
  const fs::path file = fs::path{DSX_GOLDEN} / "gpt2_tiny/config.json";
  const GptConfig config = read_gpt2_config(file);
  CHECK(config.vocab_size == 199);
  CHECK(config.n_positions == 64);
  CHECK(config.n_embd == 48);
  CHECK(config.n_layer == 4);
  CHECK(config.n_head == 3);
  CHECK(config.inner() == 192);
  CHECK(config.layer_norm_epsilon == 1e-5);
  CHECK(config.activation == GeluForm::tanh);
  CHECK(config.dropout_attention == 0);
  CHECK(config.tie_word_embeddings);
  CHECK(config.dtype == Element::f32);
  CHECK(config.eos_token_id == 198);

  const TemporaryFolder folder;
  write_gpt2_config(folder / "config.json", config);
  CHECK(read_gpt2_config(folder / "config.json") == config);
  std::string theirs = read_file(file);
  const std::string version = "  \"transformers_version\": \"5.24.0\",\n";
  theirs.erase(theirs.find(version), version.size());
  CHECK(read_file(folder / "config.json") == theirs);
}

TEST_CASE("a configuration in the hub's spelling is read") {
  GptConfig config = parse_gpt2_config(hub());
  CHECK(config == GptConfig{.bos_token_id = 50256, .eos_token_id = 50256});
  CHECK(parse_gpt2_config(hub({{"n_positions", "-"}, {"n_ctx", "512"}})).n_positions == 512);
  CHECK(parse_gpt2_config(hub({{"torch_dtype", "\"bfloat16\""}})).dtype == Element::bf16);
  CHECK(parse_gpt2_config(hub({{"torch_dtype", "\"torch.float16\""}})).dtype == Element::f16);
  CHECK(parse_gpt2_config(hub({{"dtype", "\"float64\""}, {"torch_dtype", "\"float16\""}})).dtype == Element::f64);
  CHECK(parse_gpt2_config(hub({{"activation_function", "\"gelu\""}})).activation == GeluForm::erf);
  CHECK(parse_gpt2_config(hub({{"n_inner", "3000"}})).inner() == 3000);
  CHECK(!parse_gpt2_config(hub({{"tie_word_embeddings", "false"}})).tie_word_embeddings);
  config = {.n_embd = 8,
            .n_layer = 1,
            .n_head = 2,
            .n_inner = 9,
            .activation = GeluForm::erf,
            .dropout_residual = 0.25,
            .tie_word_embeddings = false,
            .dtype = Element::bf16};
  CHECK(parse_gpt2_config(gpt2_config_json(config)) == config);
}

TEST_CASE("a configuration of another model is refused") {
  CHECK(refused({{"model_type", "\"llama\""}}).says("dsx-E635: config.json has the model_type \"llama\", not \"gpt2\""));
  CHECK(refused({{"model_type", "-"}}) == 635);
}

TEST_CASE("absent and absurd numbers of a configuration are refused") {
  CHECK(refused({{"n_embd", "-"}}).says("dsx-E636: config.json has no n_embd"));
  CHECK(refused({{"n_layer", "-12"}}).says("\"n_layer\" is -12, not a whole number from 1 to"));
  for (const char* name : {"vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner"})
    for (const char* value : {"0", "-1", "1.5", "\"12\"", "268435457", "18446744073709551615", "[]"})
      CHECK_MESSAGE(refused({{name, value}}) == 636, name);
  for (const char* name : {"resid_pdrop", "embd_pdrop", "attn_pdrop", "layer_norm_epsilon"})
    for (const char* value : {"1", "-0.1", "1e300"}) CHECK_MESSAGE(refused({{name, value}}) == 636, name);
  CHECK(refused({{"resid_pdrop", "\"0.1\""}}) == 615);
  CHECK(error_of([] { gpt2_config_json({.n_head = 0}); }) == 636);
}

TEST_CASE("heads that don't divide the width of a configuration are refused") {
  CHECK(refused({{"n_head", "7"}}).says("dsx-E307: config.json: 7 heads don't divide the width of 768"));
  CHECK(error_of([] { gpt2_config_json({.n_embd = 10, .n_head = 3}); }) == 307);
}

TEST_CASE("what GPT-2 doesn't compute is refused in a configuration") {
  CHECK(refused({{"activation_function", "\"relu\""}}).says("dsx-E637: config.json: \"activation_function\" is \"relu\""));
  CHECK(refused({{"dtype", "\"float8_e4m3fn\""}}) == 637);
  CHECK(refused({{"scale_attn_weights", "false"}}) == 637);
  CHECK(refused({{"scale_attn_by_inverse_layer_idx", "true"}}) == 637);
  CHECK(refused({{"add_cross_attention", "true"}}) == 637);
  CHECK(error_of([] { gpt2_config_json({.dtype = Element::i8}); }) == 637);
}
