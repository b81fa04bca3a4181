// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold
/// Llama and Qwen2 against Hugging Face's, in float against its float and in double: every hidden state, logits, loss and every gradient, on
/// one rank and over tensor and pipeline ranks.
#include "support/by_hand.hpp"
#include "support/stored.hpp"

#include <dsx/comm/mesh_text.hpp>
#include <dsx/optim/sgd.hpp>
#include <dsx/pipeline/gpipe.hpp>
#include <dsx/precision/bf16.hpp>
#include <dsx/recipes.hpp>
#include <dsx/train/llama_files.hpp>
#include <dsx/train/trainer.hpp>

#include <doctest/doctest.h>

#include <mutex>

using namespace dsx;
using test::integers;
using test::numbers;
using test::part_of;
using test::relative;

namespace {

AnyRecipe recipe_of(AnyPrecision precision, Extent stages) {
  return {AnySharding{}, stages > 1 ? AnySchedule{GPipe{}} : AnySchedule{}, AnyOffload{}, precision, AnyRecompute{}};
}

/// The model of a golden folder on a rank's mesh, filled with the folder's weights.
template <class Model>
struct Case {
  std::string folder;
  SafetensorsFile expected{test::golden(folder + "/expected.safetensors")};
  LlamaConfig config = read_llama_config(test::golden(folder + "/config.json"));
  Mesh mesh;
  Weights<Model, AnyRecipe> weights;
  std::vector<WeightName> names;

  static Model make(const LlamaShape& shape) {
    if constexpr (std::same_as<Model, Llama>)
      return make_llama(shape);
    else
      return make_qwen2(shape);
  }
  Case(std::string name, Session& session, AnyPrecision precision, Degrees degrees = {})
      : folder{std::move(name)},
        mesh{session, degrees},
        weights{mesh, make(shape_of(config)), recipe_of(precision, degrees.pipe)},
        names{llama_names(weights, config.num_hidden_layers)} {
    load_llama(test::golden(folder), weights);
  }
  MicroBatch batch() const {
    const std::vector<int> ids = integers(expected, "ids"), labels = integers(expected, "labels");
    MicroBatch batch;
    for (Extent t = 0; t < 3; ++t) batch.add(part_of(ids, 3, t), test::shifted(part_of(labels, 3, t)), t * 17);
    return batch;
  }
  /// In the shape of Hugging Face's tensor.
  std::vector<double> gradient(const WeightName& name) {
    const ParameterRecord& record = weights.record(name.ours);
    const auto part = part_of_whole(weights.template gradient<double>(name.ours), name, record);
    if (!name.transposed) return part;
    const Extent rows = record.shape.rows, columns = part.size() / rows;
    std::vector<double> turned(part.size());
    for (Extent r = 0; r < rows; ++r)
      for (Extent c = 0; c < columns; ++c) turned[c * rows + r] = part[r * columns + c];
    return turned;
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
  Case<Model> c{folder, session, precision};
  test::ByHand by_hand{c.weights, false};
  const MicroBatch batch = c.batch();
  Extent compared = 0;
  const auto compare = [&](Node node, const std::string& name) {
    INFO(folder << ": " << name);
    CHECK(relative(by_hand.read(node), numbers(c.expected, name)) < 1e-5);
    ++compared;
  };
  by_hand.forward(batch.view(batch.rows()), [&](const auto& layer, auto flow, Unit unit) {
    auto out = layer(flow);
    if constexpr (std::same_as<decltype(out), Logits>) {
      compare(out.hidden_RC.node, "hidden_states." + std::to_string(c.config.num_hidden_layers));
      compare(all_logits(out).node, "logits");
    } else if (unit < c.config.num_hidden_layers) {  // the last block's is only given behind the norm
      compare(out.node, "hidden_states." + std::to_string(unit));
    }
    return out;
  });
  CHECK(compared == c.config.num_hidden_layers + 2);
}

template <class Model>
void check_gradients(const std::string& folder, bool twice, Degrees degrees) {
  std::mutex mutex;
  launch_threads(degrees.ranks(), [&](Session& session) {
    Case<Model> c{folder, session, twice ? AnyPrecision{Fp64{}} : AnyPrecision{Fp32{}}, degrees};
    Trainer<Weights<Model, AnyRecipe>, Sgd, TokenLoss> trainer{c.weights, Sgd{}, TokenLoss{64}, {.rows = 51}};
    const MicroBatch batch = c.batch();
    trainer.accumulate(std::span{&batch, 1});
    const double loss = trainer.verdict().loss, floor = 1e-3 * c.largest_gradient();
    std::vector<std::vector<double>> gradients;
    for (const WeightName& name : c.names) gradients.push_back(c.gradient(name));
    const std::lock_guard lock{mutex};
    const std::string layout = folder + " on " + to_text(degrees) + (twice ? " in double" : "");
    INFO(layout);
    CHECK(relative(loss, numbers(c.expected, twice ? "float64.loss" : "loss")[0]) < (twice ? 1e-12 : 1e-6));
    for (Extent i = 0; i < c.names.size(); ++i) {
      INFO(c.names[i].theirs);
      CHECK(relative(gradients[i], numbers(c.expected, "grad." + c.names[i].theirs), floor) < 2e-5);
    }
  });
}

template <class Model>
void check_layouts(const std::string& folder) {
  for (const bool twice : {false, true})
    for (const Extent pipe : {1, 2}) {
      check_gradients<Model>(folder, twice, {.pipe = pipe});
      for (const bool token_split : {false, true}) check_gradients<Model>(folder, twice, {.tensor = 2, .pipe = pipe, .token_split = token_split});
    }
}

}  // namespace

TEST_CASE("Llama's logits and every hidden state equal Hugging Face's") {
  for (const AnyPrecision& precision : {AnyPrecision{Fp32{}}, AnyPrecision{Fp64{}}}) check_values<Llama>("llama_tiny", precision);
}

TEST_CASE("Qwen2's logits and every hidden state equal Hugging Face's") {
  for (const AnyPrecision& precision : {AnyPrecision{Fp32{}}, AnyPrecision{Fp64{}}}) check_values<Qwen2>("qwen2_tiny", precision);
}

TEST_CASE("in bf16 Llama and Qwen2 lose as much as in float, but for rounding") {
  const auto loss = [](auto& c) {
    Evaluator evaluator{c.weights, TokenLoss{64}, 51};
    const MicroBatch batch = c.batch();
    return relative(evaluator.loss(std::span{&batch, 1}), numbers(c.expected, "loss")[0]);
  };
  Session one{self_transport()}, two{self_transport()};
  Case<Llama> llama{"llama_tiny", one, Bf16{}};
  Case<Qwen2> qwen2{"qwen2_tiny", two, Bf16{}};
  CHECK(loss(llama) < 1e-2);
  CHECK(loss(qwen2) < 1e-2);
}

TEST_CASE("Llama's loss and all 30 gradients equal Hugging Face's on every layout") {
  Session session{self_transport()};
  CHECK(Case<Llama>{"llama_tiny", session, Fp32{}}.names.size() == 30);
  check_layouts<Llama>("llama_tiny");
}

TEST_CASE("Qwen2's loss and all 26 gradients equal Hugging Face's on every layout") {
  Session session{self_transport()};
  CHECK(Case<Qwen2>{"qwen2_tiny", session, Fp32{}}.names.size() == 26);
  check_layouts<Qwen2>("qwen2_tiny");
}
