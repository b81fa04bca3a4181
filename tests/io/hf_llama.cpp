// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Hugging Face's configurations of Llama, Qwen2 and Mixtral: both spellings, every scaling of positions, the refusals, and what transformers wrote
/// written again.
#include "io_support.hpp"

#include <dsx/io/atomic_file.hpp>
#include <dsx/io/hf_llama.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;
namespace fs = std::filesystem;

namespace {

using Family = LlamaConfig::Family;
using Scaling = Rope::Scaling;
using Changes = std::vector<std::pair<std::string, std::string>>;

/// Llama 3.1 8B as the hub has it, with some members replaced or, if the value is "-", left out.
Json hub(const Changes& changes = {}) {
  Changes members{
      {"architectures", R"(["LlamaForCausalLM"])"},
      {"attention_bias", "false"},
      {"attention_dropout", "0.0"},
      {"bos_token_id", "128000"},
      {"eos_token_id", "[128001, 128008, 128009]"},
      {"hidden_act", R"("silu")"},
      {"hidden_size", "4096"},
      {"initializer_range", "0.02"},
      {"intermediate_size", "14336"},
      {"max_position_embeddings", "131072"},
      {"mlp_bias", "false"},
      {"model_type", R"("llama")"},
      {"num_attention_heads", "32"},
      {"num_hidden_layers", "32"},
      {"num_key_value_heads", "8"},
      {"pretraining_tp", "1"},
      {"rms_norm_eps", "1e-05"},
      {"rope_scaling",
       R"({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"})"},
      {"rope_theta", "500000.0"},
      {"tie_word_embeddings", "false"},
      {"torch_dtype", R"("bfloat16")"},
      {"vocab_size", "128256"}};
  for (const auto& [key, value] : changes) {
    std::erase_if(members, [&](const auto& member) { return member.first == key; });
    if (value != "-") members.emplace_back(key, value);
  }
  std::string text;
  for (const auto& [key, value] : members) text += (text.empty() ? "{\"" : ",\"") + key + "\":" + value;
  return Json::parse(text + "}", "config.json");
}

Refusal refused(const Changes& changes) {
  return error_of([&] { parse_llama_config(hub(changes)); });
}
/// As models of Hugging Face turn.
Rope in_float(Rope rope) {
  rope.in_float = true;
  return rope;
}
Rope rope_of(const std::string& scaling) { return parse_llama_config(hub({{"rope_scaling", scaling}})).rope; }

}  // namespace

TEST_CASE("configurations of Llama and Qwen2 of transformers 5 are read, and written as they were") {
  for (const std::string name : {"llama_tiny", "qwen2_tiny"}) {
    const fs::path file = fs::path{DSX_GOLDEN} / name / "config.json";
    const LlamaConfig config = read_llama_config(file);
    CHECK(config == LlamaConfig{.family = name == "llama_tiny" ? Family::llama : Family::qwen2,
                                .vocab_size = 199,
                                .max_position_embeddings = 64,
                                .hidden_size = 48,
                                .intermediate_size = 104,
                                .num_hidden_layers = name == "llama_tiny" ? 3UL : 2UL,
                                .num_attention_heads = 6,
                                .num_key_value_heads = 2,
                                .head_dim = 8,
                                .rms_norm_eps = name == "llama_tiny" ? 1e-5 : 1e-6,
                                .tie_word_embeddings = name == "qwen2_tiny",
                                .bos_token_id = 1,
                                .pad_token_id = 0,
                                .eos_token_ids = {198}});
    const TemporaryFolder folder;
    write_llama_config(folder / "config.json", config);
    CHECK(read_llama_config(folder / "config.json") == config);
    std::string theirs = read_file(file);
    const std::string version = "  \"transformers_version\": \"5.24.0\",\n";
    theirs.erase(theirs.find(version), version.size());
    CHECK(read_file(folder / "config.json") == theirs);
  }
}

TEST_CASE("a configuration of Mixtral is read in both spellings, and written as transformers does") {
  const fs::path file = fs::path{DSX_GOLDEN} / "mixtral_tiny" / "config.json";
  const LlamaConfig config = read_llama_config(file);
  CHECK(config.family == Family::mixtral);
  CHECK(config.num_local_experts == 4);
  CHECK(config.num_experts_per_tok == 2);
  CHECK(config.router_aux_loss_coef == 0.02);
  CHECK(config.head_dim == 8);
  CHECK(config.rope == in_float({.base = 1e6}));
  const TemporaryFolder folder;
  write_llama_config(folder / "config.json", config);
  std::string theirs = read_file(file);
  const std::string version = "  \"transformers_version\": \"5.24.0\",\n";
  theirs.erase(theirs.find(version), version.size());
  CHECK(read_file(folder / "config.json") == theirs);

  const Changes eight{{"model_type", "\"mixtral\""}, {"num_local_experts", "8"},   {"num_experts_per_tok", "2"}, {"rope_theta", "1000000.0"},
                      {"rope_scaling", "-"},         {"sliding_window", "null"}, {"output_router_logits", "false"}, {"torch_dtype", "\"bfloat16\""}};
  const LlamaConfig hubs = parse_llama_config(hub(eight));
  CHECK(hubs.num_local_experts == 8);
  CHECK(hubs.router_aux_loss_coef == 0.001);
  CHECK(hubs.dtype == Element::bf16);
  const auto with = [&](const std::string& key, const std::string& value) {
    Changes changed = eight;
    changed.emplace_back(key, value);
    return changed;
  };
  CHECK(parse_llama_config(hub(with("rope_theta", "-"))).rope.base == 1e6);
  CHECK(refused(with("num_local_experts", "-")).says("dsx-E636: config.json has no num_local_experts"));
  CHECK(refused(with("num_experts_per_tok", "9")).says("dsx-E347: config.json: each token goes to 9 of 8 experts"));
  CHECK(refused(with("sliding_window", "4096")) == 637);
  CHECK(error_of([&] { llama_config_json({.family = Family::mixtral}); }) == 347);
}

TEST_CASE("a configuration of Llama in the hub's spelling is read") {
  const LlamaConfig config = parse_llama_config(hub());
  CHECK(config.head_dim == 128);
  CHECK(config.num_key_value_heads == 8);
  CHECK(config.dtype == Element::bf16);
  CHECK(config.eos_token_ids == std::vector<Extent>{128001, 128008, 128009});
  CHECK(config.rope == in_float({.base = 500000, .scaling = Scaling::llama3, .factor = 8, .trained = 8192, .slow = 1, .fast = 4}));
  CHECK(parse_llama_config(hub({{"num_key_value_heads", "-"}})).num_key_value_heads == 32);
  CHECK(parse_llama_config(hub({{"head_dim", "64"}})).head_dim == 64);
  CHECK(parse_llama_config(hub({{"eos_token_id", "2"}})).eos_token_ids == std::vector<Extent>{2});
  CHECK(parse_llama_config(hub({{"eos_token_id", "-"}})).eos_token_ids.empty());
  CHECK(parse_llama_config(hub({{"rope_scaling", "null"}, {"rope_theta", "-"}})).rope == in_float({}));
  const std::string qwen = R"("qwen2")";
  CHECK(parse_llama_config(hub({{"model_type", qwen}, {"use_sliding_window", "false"}, {"sliding_window", "131072"}})).family == Family::qwen2);
}

TEST_CASE("every scaling of rotary positions is read in both spellings, and written to be read again") {
  CHECK(rope_of(R"({"type": "linear", "factor": 4})") == in_float({.base = 500000, .scaling = Scaling::linear, .factor = 4}));
  CHECK(rope_of(R"({"type": "dynamic", "factor": 2.0})") ==
        in_float({.base = 500000, .scaling = Scaling::dynamic, .factor = 2, .trained = 131072, .length = 131072}));
  CHECK(rope_of(R"({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768})") ==
        in_float({.base = 500000, .scaling = Scaling::yarn, .factor = 4, .trained = 32768, .amplitude = 1 + 0.1 * std::log(4.0)}));
  CHECK(rope_of(R"({"rope_type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 30})") ==
        in_float({.base = 500000, .scaling = Scaling::yarn, .factor = 40, .trained = 131072, .fast = 30}));
  CHECK(rope_of(R"({"rope_type": "yarn", "factor": 4, "attention_factor": 1.5})").amplitude == 1.5);
  CHECK(parse_llama_config(hub({{"rope_scaling", "-"}, {"rope_theta", "-"}, {"rope_parameters", R"({"rope_theta": 1e6, "rope_type": "default"})"}}))
            .rope == in_float({.base = 1e6}));
  for (const char* scaling : {R"({"type": "linear", "factor": 4})", R"({"type": "dynamic", "factor": 2})", R"({"type": "yarn", "factor": 4})",
                              R"({"rope_type": "llama3", "factor": 8, "original_max_position_embeddings": 8192})", "null"}) {
    const LlamaConfig config = parse_llama_config(hub({{"rope_scaling", scaling}}));
    CHECK(parse_llama_config(llama_config_json(config)) == config);
  }
}

TEST_CASE("a configuration of another model than Llama, Qwen2 and Mixtral is refused") {
  CHECK(refused({{"model_type", "\"gpt2\""}})
            .says("dsx-E635: config.json has the model_type \"gpt2\"; dsx reads \"llama\", \"qwen2\" and \"mixtral\" here"));
  CHECK(refused({{"model_type", "-"}}) == 635);
}

TEST_CASE("absent and absurd numbers of Llama's configuration are refused") {
  CHECK(refused({{"hidden_size", "-"}}).says("dsx-E636: config.json has no hidden_size"));
  for (const char* name : {"vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                           "num_key_value_heads", "head_dim"})
    for (const char* value : {"0", "-1", "1.5", "\"12\"", "268435457"}) CHECK_MESSAGE(refused({{name, value}}) == 636, name);
  for (const char* name : {"rms_norm_eps", "attention_dropout"}) CHECK_MESSAGE(refused({{name, "-0.1"}}) == 636, name);
  CHECK(refused({{"rope_theta", "0"}}) == 636);
  CHECK(refused({{"rope_scaling", R"({"type": "linear"})"}}) == 636);
  CHECK(refused({{"rope_scaling", R"({"type": "linear", "factor": 0.5})"}}) == 636);
  CHECK(refused({{"rope_scaling", R"({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4})"}}) == 636);
}

TEST_CASE("heads of Llama's configuration that don't divide are refused") {
  CHECK(refused({{"num_attention_heads", "24"}}).says("dsx-E307: config.json: 24 heads don't divide the width of 4096"));
  CHECK(refused({{"num_key_value_heads", "5"}}).says("dsx-E330: config.json: 32 query heads can't share 5 heads of keys and values equally"));
  CHECK(error_of([] { llama_config_json({.num_key_value_heads = 0}); }) == 330);
}

TEST_CASE("what Llama doesn't compute is refused in a configuration") {
  for (const char* name : {"attention_bias", "mlp_bias", "use_sliding_window"}) CHECK_MESSAGE(refused({{name, "true"}}) == 637, name);
  CHECK(refused({{"hidden_act", "\"gelu\""}}).says("dsx-E637: config.json: \"hidden_act\" is \"gelu\"; dsx's Llama knows silu"));
  CHECK(refused({{"rope_scaling", R"({"rope_type": "longrope", "factor": 4})"}}).says("of the type \"longrope\""));
  CHECK(refused({{"rope_scaling", R"({"rope_type": "yarn", "factor": 4, "truncate": false})"}}) == 637);
  CHECK(refused({{"partial_rotary_factor", "0.5"}}) == 637);
  CHECK(error_of([] { llama_config_json({.dtype = Element::i8}); }) == 637);
}
