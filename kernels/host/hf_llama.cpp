// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Reading and writing of Hugging Face's Llama, Qwen2 and Mixtral configurations, behind io/hf_llama.hpp.
///
///     {"model_type": "llama", "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, ...}, ...}     // the hub
///     {"model_type": "llama", "rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, ...}, ...}  // transformers 5
#include "hf_config.hpp"

#include <dsx/io/atomic_file.hpp>
#include <dsx/io/hf_llama.hpp>

namespace dsx {

using namespace hf;

namespace {

using Family = LlamaConfig::Family;
using Scaling = Rope::Scaling;

struct FamilyName {
  std::string_view type, model;
};
constexpr FamilyName family_names[] = {{"llama", "Llama"}, {"qwen2", "Qwen2"}, {"mixtral", "Mixtral"}};  // by Family

std::string_view name_of_model(Family family) { return family_names[std::size_t(family)].model; }

constexpr std::pair<std::string_view, Scaling> scaling_names[] = {
    {"default", Scaling::none}, {"linear", Scaling::linear}, {"dynamic", Scaling::dynamic}, {"yarn", Scaling::yarn}, {"llama3", Scaling::llama3}};

bool given(const Json& json, const char* name) { return json.contains(name) && !json[name].is_null(); }

/// A positive number: whichever of the two objects has it.
double positive(const Json& inner, const Json& outer, const char* name, double otherwise) {
  return real_at(given(inner, name) ? inner : outer, name, otherwise, 1e-6, 1e12);
}

double yarn_amplitude_of(const Json& rope, double factor) {
  if (given(rope, "attention_factor")) return positive(rope, rope, "attention_factor", 1);
  if (!given(rope, "mscale") || !given(rope, "mscale_all_dim")) return yarn_amplitude(factor);
  return yarn_amplitude(factor, positive(rope, rope, "mscale", 1)) / yarn_amplitude(factor, positive(rope, rope, "mscale_all_dim", 1));
}

/// `base`: where the file says nothing.
Rope rope_of(const Json& json, Extent positions, double base) {
  const char* key = given(json, "rope_parameters") ? "rope_parameters" : "rope_scaling";
  const Json inner = given(json, key) ? json[key] : Json::object({});
  if (positive(inner, json, "partial_rotary_factor", 1) != 1) fail<637>(json.where(), " turns only a part of each head; dsx's Llama turns all of it");
  Rope rope = LlamaConfig{}.rope;
  rope.base = positive(inner, json, "rope_theta", base);
  const std::string type = inner.text("rope_type", inner.text("type", "default"));
  const auto* known = std::find_if(std::begin(scaling_names), std::end(scaling_names), [&](const auto& entry) { return entry.first == type; });
  if (known == std::end(scaling_names))
    fail<637>(inner.where(), " asks for rotary positions of the type \"", type, "\"; dsx knows default, linear, dynamic, yarn and llama3");
  rope.scaling = known->second;
  if (rope.scaling == Scaling::none) return rope;
  if (!given(inner, "factor")) fail<636>(inner.where(), " has no factor");
  rope.factor = real_at(inner, "factor", 1, 1, 1e6);
  if (rope.scaling == Scaling::linear) return rope;
  const char* original = "original_max_position_embeddings";
  rope.trained = given(inner, original) ? size_at(inner, {original}) : given(json, original) ? size_at(json, {original}) : positions;
  if (rope.scaling == Scaling::dynamic) rope.trained = rope.length = positions;
  if (rope.scaling == Scaling::yarn) {
    rope.fast = positive(inner, inner, "beta_fast", 32), rope.slow = positive(inner, inner, "beta_slow", 1);
    rope.amplitude = yarn_amplitude_of(inner, rope.factor);
    if (!inner.boolean("truncate", true)) fail<637>(inner["truncate"].where(), " is false; dsx's yarn begins and ends its ramp at whole pairs");
  }
  if (rope.scaling == Scaling::llama3)
    rope.fast = positive(inner, inner, "high_freq_factor", 4), rope.slow = positive(inner, inner, "low_freq_factor", 1);
  if (rope.fast <= rope.slow)
    fail<636>(inner.where(), ": rotary positions of more than ", rope.fast, " turns are fast and of fewer than ", rope.slow, " slow");
  return rope;
}

Json rope_json(const Rope& rope) {
  const auto* known =
      std::find_if(std::begin(scaling_names), std::end(scaling_names), [&](const auto& entry) { return entry.second == rope.scaling; });
  std::vector<Json::Member> members;
  const bool ramp = rope.scaling == Scaling::yarn || rope.scaling == Scaling::llama3;
  if (rope.scaling == Scaling::yarn) members = {{"attention_factor", rope.amplitude}, {"beta_fast", rope.fast}, {"beta_slow", rope.slow}};
  if (rope.scaling != Scaling::none) members.push_back({"factor", rope.factor});
  if (rope.scaling == Scaling::llama3) members.push_back({"high_freq_factor", rope.fast}), members.push_back({"low_freq_factor", rope.slow});
  if (ramp) members.push_back({"original_max_position_embeddings", rope.trained});
  members.push_back({"rope_theta", rope.base}), members.push_back({"rope_type", known->first});
  return Json::object(members);
}

std::vector<Extent> tokens_at(const Json& json, const char* name) {
  std::vector<Extent> tokens;
  if (!given(json, name)) return tokens;
  if (json[name].kind() != Json::Kind::array) return {json[name].extent()};
  for (const Json& token : json[name].items()) tokens.push_back(token.extent());
  return tokens;
}

Json tokens_json(const std::vector<Extent>& tokens) {
  if (tokens.empty()) return {};
  if (tokens.size() == 1) return tokens.front();
  return Json::array({tokens.begin(), tokens.end()});
}

void check_groups(const LlamaConfig& c, std::string_view where) {
  if (c.num_attention_heads == 0 || c.num_key_value_heads == 0 || c.num_attention_heads % c.num_key_value_heads != 0)
    fail<330>(where, ": ", c.num_attention_heads, " query heads can't share ", c.num_key_value_heads, " heads of keys and values equally");
}

void check_choices(const LlamaConfig& c, std::string_view where) {
  if (c.num_experts_per_tok == 0 || c.num_experts_per_tok > c.num_local_experts)
    fail<347>(where, ": each token goes to ", c.num_experts_per_tok, " of ", c.num_local_experts, " experts");
}

void read_experts(LlamaConfig& c, const Json& json) {
  if (given(json, "sliding_window") && json["sliding_window"].number() < double(c.max_position_embeddings))
    fail<637>(json["sliding_window"].where(), " is ", json["sliding_window"].dump(), "; dsx's Mixtral attends to all positions");
  c.num_local_experts = size_at(json, {"num_local_experts", "num_experts"});
  c.num_experts_per_tok = size_at(json, {"num_experts_per_tok"});
  check_choices(c, json.where());
  c.router_aux_loss_coef = real_at(json, "router_aux_loss_coef", c.router_aux_loss_coef, 0, 1e6);
  c.router_jitter_noise = real_at(json, "router_jitter_noise", 0, 0, 1);
  c.output_router_logits = json.boolean("output_router_logits", false);
}

}  // namespace

LlamaConfig parse_llama_config(const Json& json) {
  const std::string type = json.text("model_type", "");
  const auto* known = std::find_if(std::begin(family_names), std::end(family_names), [&](const FamilyName& f) { return f.type == type; });
  if (known == std::end(family_names))
    fail<635>(json.where(), type.empty() ? " has no model_type" : concat(" has the model_type \"", type, '"'),
              "; dsx reads \"llama\", \"qwen2\" and \"mixtral\" here");
  LlamaConfig config;
  config.family = Family(known - std::begin(family_names));
  const std::string_view model = name_of_model(config.family);
  for (const char* name : {"attention_bias", "mlp_bias", "use_sliding_window"}) expect(json, name, false, model);
  if (const std::string activation = json.text("hidden_act", "silu"); activation != "silu")
    fail<637>(json["hidden_act"].where(), " is \"", activation, "\"; dsx's ", model, " knows silu");

  config.vocab_size = size_at(json, {"vocab_size"});
  config.max_position_embeddings = size_at(json, {"max_position_embeddings"});
  config.hidden_size = size_at(json, {"hidden_size"});
  config.intermediate_size = size_at(json, {"intermediate_size"});
  config.num_hidden_layers = size_at(json, {"num_hidden_layers"});
  config.num_attention_heads = size_at(json, {"num_attention_heads"});
  config.num_key_value_heads = size_at(json, {"num_key_value_heads", "num_attention_heads"});
  if (given(json, "head_dim")) {
    config.head_dim = size_at(json, {"head_dim"});
  } else {
    check_heads(config.hidden_size, config.num_attention_heads, json.where());
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
  check_groups(config, json.where());
  config.rms_norm_eps = real_at(json, "rms_norm_eps", config.rms_norm_eps, 0, 1);
  config.initializer_range = real_at(json, "initializer_range", config.initializer_range, 0, 1e3);
  config.attention_dropout = real_at(json, "attention_dropout", 0, 0, 1);
  config.rope = rope_of(json, config.max_position_embeddings, config.family == Family::mixtral ? 1e6 : 1e4);
  config.tie_word_embeddings = json.boolean("tie_word_embeddings", false);
  config.dtype = dtype_at(json);
  config.bos_token_id = token_at(json, "bos_token_id");
  config.pad_token_id = token_at(json, "pad_token_id");
  config.eos_token_ids = tokens_at(json, "eos_token_id");
  if (config.family == Family::mixtral) read_experts(config, json);
  return config;
}

LlamaConfig read_llama_config(const std::filesystem::path& file) { return parse_llama_config(Json::parse(read_file(file), file.string())); }

std::vector<int> read_end_tokens(const std::filesystem::path& folder) {
  for (const char* name : {"generation_config.json", "config.json"}) {
    const std::filesystem::path file = folder / name;
    if (!std::filesystem::exists(file)) continue;
    const std::vector<Extent> tokens = tokens_at(Json::parse(read_file(file), file.string()), "eos_token_id");
    if (!tokens.empty()) return {tokens.begin(), tokens.end()};
  }
  return {};
}

Json llama_config_json(const LlamaConfig& c) {
  const bool llama = c.family == Family::llama, qwen2 = c.family == Family::qwen2, mixtral = c.family == Family::mixtral;
  const std::string_view model = name_of_model(c.family);
  check_groups(c, concat("a ", model, " to be written"));
  if (mixtral) check_choices(c, concat("a ", model, " to be written"));
  const bool usual_dim = c.hidden_size == c.head_dim * c.num_attention_heads;
  // Sorted, and with all that transformers writes for such a model, so that its own file and ours can be compared.
  std::vector<Json::Member> members{{"architectures", Json::array({concat(model, "ForCausalLM")})}};
  const auto add = [&](std::string_view key, const Json& value) { members.push_back({std::string{key}, value}); };
  if (llama) add("attention_bias", false);
  add("attention_dropout", c.attention_dropout);
  add("bos_token_id", or_null(c.bos_token_id));
  add("dtype", dtype_name(c.dtype, model));
  add("eos_token_id", tokens_json(c.eos_token_ids));
  if (llama || !usual_dim) add("head_dim", c.head_dim);
  else if (mixtral) add("head_dim", nullptr);
  add("hidden_act", "silu");
  add("hidden_size", c.hidden_size);
  add("initializer_range", c.initializer_range);
  add("intermediate_size", c.intermediate_size);
  if (qwen2) add("layer_types", Json::array(std::vector<Json>(c.num_hidden_layers, Json{"full_attention"})));
  add("max_position_embeddings", c.max_position_embeddings);
  if (qwen2) add("max_window_layers", 28);
  if (llama) add("mlp_bias", false);
  add("model_type", std::string{family_names[std::size_t(c.family)].type});
  add("num_attention_heads", c.num_attention_heads);
  if (mixtral) add("num_experts_per_tok", c.num_experts_per_tok);
  add("num_hidden_layers", c.num_hidden_layers);
  add("num_key_value_heads", c.num_key_value_heads);
  if (mixtral) add("num_local_experts", c.num_local_experts), add("output_router_logits", c.output_router_logits);
  add("pad_token_id", or_null(c.pad_token_id));
  if (llama) add("pretraining_tp", 1);
  add("rms_norm_eps", c.rms_norm_eps);
  add("rope_parameters", rope_json(c.rope));
  if (mixtral) add("router_aux_loss_coef", c.router_aux_loss_coef), add("router_jitter_noise", c.router_jitter_noise);
  if (!llama) add("sliding_window", nullptr);
  add("tie_word_embeddings", c.tie_word_embeddings);
  add("use_cache", true);
  if (qwen2) add("use_sliding_window", false);
  add("vocab_size", c.vocab_size);
  return Json::object(members);
}

void write_llama_config(const std::filesystem::path& file, const LlamaConfig& config) { write_file(file, llama_config_json(config).dump(2) + '\n'); }

}  // namespace dsx
