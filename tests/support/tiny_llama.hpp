// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A golden model of Llama's kind against Hugging Face's, in float against its float and in double: every hidden state, logits, router
/// logits, loss and every gradient, on one rank and over tensor and pipeline ranks.
///
///     check_values<Llama>("llama_tiny", Fp32{});
///     check_layouts<Mixtral>("mixtral_tiny");
#pragma once

#include "by_hand.hpp"
#include "stored.hpp"

#include <dsx/comm/mesh_text.hpp>
#include <dsx/optim/sgd.hpp>
#include <dsx/pipeline/gpipe.hpp>
#include <dsx/precision/bf16.hpp>
#include <dsx/recipes.hpp>
#include <dsx/train/llama_files.hpp>
#include <dsx/train/trainer.hpp>

#include <doctest/doctest.h>

#include <mutex>

namespace dsx::test {

using JointMixtral = JointMixtralOf<Dropless<2>>;

inline AnyRecipe recipe_of(AnyPrecision precision, Extent stages) {
  return {AnySharding{}, stages > 1 ? AnySchedule{GPipe{}} : AnySchedule{}, AnyOffload{}, precision, AnyRecompute{}};
}

/// The model of a golden folder on a rank's mesh, filled with the folder's weights.
template <class Model>
struct TinyLlama {
  std::string folder;
  SafetensorsFile expected{golden(folder + "/expected.safetensors")};
  LlamaConfig config = read_llama_config(golden(folder + "/config.json"));
  Mesh mesh;
  Weights<Model, AnyRecipe> weights;
  std::vector<WeightName> names;

  static Model make(const LlamaConfig& config) {
    if constexpr (std::same_as<Model, Llama>) return make_llama(shape_of(config));
    else if constexpr (std::same_as<Model, Qwen2>) return make_qwen2(shape_of(config));
    else if constexpr (std::same_as<Model, Mixtral>)
      return make_mixtral(shape_of(config), Dropless<2>{.width = config.hidden_size, .experts = config.num_local_experts});
    else if constexpr (std::same_as<Model, JointMixtral>)
      return make_joint_mixtral(shape_of(config), Dropless<2>{.width = config.hidden_size, .experts = config.num_local_experts}, 2 * 0.02);
    else return make_mixtral(shape_of(config), router_of(config));
  }
  TinyLlama(std::string name, Session& session, AnyPrecision precision, Degrees degrees = {})
      : folder{std::move(name)},
        mesh{session, degrees},
        weights{mesh, make(config), recipe_of(precision, degrees.pipe)},
        names{llama_names(weights, config.num_hidden_layers)} {
    load_llama(golden(folder), weights);
  }
  MicroBatch batch() const {
    const std::vector<int> ids = integers(expected, "ids"), labels = integers(expected, "labels");
    MicroBatch batch;
    for (Extent t = 0; t < 3; ++t) batch.add(part_of(ids, 3, t), shifted(part_of(labels, 3, t)), t * 17);
    return batch;
  }
  /// As Hugging Face's tensor.
  std::vector<double> gradient(const WeightName& name) {
    return part_of_whole(weights.template gradient<double>(name.ours), name, weights.record(name.ours));
  }
  /// Those whose gradients a file has.
  std::vector<WeightName> named_in(const SafetensorsFile& file) const {
    std::vector<WeightName> all = names;
    std::erase_if(all, [&](const WeightName& name) { return !file.contains("grad." + name.theirs); });
    return all;
  }
  double largest_gradient() const {
    double largest = 0;
    for (const WeightName& name : names)
      for (const double g : numbers(expected, "grad." + name.theirs)) largest = std::max(largest, std::abs(g));
    return largest;
  }
};

template <class Model>
void check_values(const std::string& folder, AnyPrecision precision) {
  Session session{self_transport()};
  TinyLlama<Model> c{folder, session, precision};
  ByHand by_hand{c.weights, false};
  const MicroBatch batch = c.batch();
  Extent compared = 0;
  const auto compare = [&](Node node, const std::string& name) {
    INFO(folder << ": " << name);
    CHECK(relative(by_hand.read(node), numbers(c.expected, name)) < 1e-5);
    ++compared;
  };
  Extent routers = 0;
  by_hand.forward(batch.view(batch.rows()), [&](const auto& layer, auto flow, Unit unit) {
    if constexpr (requires { layer.mlp.router; }) {
      const auto y_RC = flow + layer.attention(layer.attention_norm(flow));
      compare(router_logits(layer.mlp_norm(y_RC), layer.mlp.router.gate), "router_logits." + std::to_string(routers++));
    }
    auto out = layer(flow);
    if constexpr (std::same_as<decltype(out), Logits>) {
      compare(out.hidden_RC.node, "hidden_states." + std::to_string(c.config.num_hidden_layers));
      compare(all_logits(out).node, "logits");
    } else if (unit < c.config.num_hidden_layers) {  // the last block's is only given behind the norm
      compare(out.node, "hidden_states." + std::to_string(unit));
    }
    return out;
  });
  CHECK(routers == (c.config.family == LlamaConfig::Family::mixtral ? c.config.num_hidden_layers : 0));
  CHECK(compared == routers + c.config.num_hidden_layers + 2);
}

/// What a step minimises, and the file that has its gradients.
struct Minimised {
  std::string gradients = "/expected.safetensors", loss = "loss", exact_loss = "float64.loss";
};
template <class Model>
void check_gradients(const std::string& folder, bool twice, Degrees degrees, const Minimised& minimised = {}) {
  std::mutex mutex;
  launch_threads(degrees.ranks(), [&](Session& session) {
    TinyLlama<Model> c{folder, session, twice ? AnyPrecision{Fp64{}} : AnyPrecision{Fp32{}}, degrees};
    Trainer<Weights<Model, AnyRecipe>, Sgd, TokenLoss> trainer{c.weights, Sgd{}, TokenLoss{64}, {.rows = 51}};
    const MicroBatch batch = c.batch();
    trainer.accumulate(std::span{&batch, 1});
    const double loss = trainer.verdict().loss, floor = 1e-3 * c.largest_gradient();
    const SafetensorsFile answers{golden(folder + minimised.gradients)};
    const std::vector<WeightName> names = c.named_in(answers);
    std::vector<std::vector<double>> gradients;
    for (const WeightName& name : names) gradients.push_back(c.gradient(name));
    const std::lock_guard lock{mutex};
    const std::string layout = folder + " on " + to_text(degrees) + (twice ? " in double" : "");
    INFO(layout);
    CHECK(relative(loss, numbers(answers, twice ? minimised.exact_loss : minimised.loss)[0]) < (twice ? 1e-12 : 1e-6));
    CHECK(names.size() >= 10);
    for (Extent i = 0; i < names.size(); ++i) {
      INFO(names[i].theirs);
      CHECK(relative(gradients[i], numbers(answers, "grad." + names[i].theirs), floor) < 2e-5);
    }
  });
}

template <class Model>
void check_layouts(const std::string& folder, const Minimised& minimised = {}) {
  for (const bool twice : {false, true})
    for (const Extent pipe : {1, 2}) {
      check_gradients<Model>(folder, twice, {.pipe = pipe}, minimised);
      for (const bool token_split : {false, true}) 
        check_gradients<Model>(folder, twice, {.tensor = 2, .pipe = pipe, .token_split = token_split}, minimised);
    }
}

}  // namespace dsx::test
