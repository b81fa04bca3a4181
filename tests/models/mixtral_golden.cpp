// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold gradient
/// Mixtral against Hugging Face's golden model.
#include "support/tiny_llama.hpp"

using namespace dsx;
using namespace dsx::test;

namespace {

const std::string folder = "mixtral_tiny";

}  // namespace

TEST_CASE("Mixtral's logits, router logits and every hidden state equal Hugging Face's") {
  for (const AnyPrecision& precision : {AnyPrecision{Fp32{}}, AnyPrecision{Fp64{}}}) check_values<Mixtral>(folder, precision);
}

TEST_CASE("Mixtral's loss and all 41 gradients equal Hugging Face's on every layout") {
  Session session{self_transport()};
  CHECK(TinyLlama<Mixtral>{folder, session, Fp32{}}.names.size() == 41);
  check_layouts<Mixtral>(folder);
}

TEST_CASE("Mixtral's loss with all its routers judged together, and its gradients, equal Hugging Face's on every layout") {
  check_layouts<JointMixtral>(folder, {"/with_aux.safetensors", "float64.loss_with_aux", "float64.loss_with_aux"});
}

TEST_CASE("Mixtral's balance loss over all layers is Hugging Face's, no evaluation has it, and a loss by layer is another") {
  Session session{self_transport()}, other{self_transport()};
  TinyLlama<JointMixtral> joint{folder, session, Fp32{}};
  const MicroBatch batch = joint.batch();
  Trainer<decltype(joint.weights), Sgd, TokenLoss> trainer{joint.weights, Sgd{}, TokenLoss{}, {.rows = 51}};
  trainer.accumulate(std::span{&batch, 1});
  const double with = trainer.verdict().loss;
  CHECK(relative(with, numbers(joint.expected, "loss_with_aux")[0]) < 1e-6);
  Evaluator evaluator{joint.weights, TokenLoss{}, 51};
  const double without = evaluator.loss(std::span{&batch, 1});
  CHECK(relative(without, numbers(joint.expected, "loss")[0]) < 1e-6);
  CHECK(relative((with - without) / 0.02, numbers(joint.expected, "aux_loss")[0]) < 1e-5);

  const LlamaConfig& config = joint.config;
  const Mesh mesh{other, {}};
  Weights by_layer{mesh, make_mixtral(shape_of(config), Dropless<2>{.width = 48, .experts = 4, .balance = {.weight = 0.02}}), Recipe{}};
  load_llama(golden(folder), by_layer);
  Trainer<decltype(by_layer), Sgd, TokenLoss> another{by_layer, Sgd{}, TokenLoss{}, {.rows = 51}};
  another.accumulate(std::span{&batch, 1});
  CHECK(relative((another.verdict().loss - without) / 0.02, numbers(joint.expected, "aux_loss")[0]) > 1e-3);  // the sum of two layers' losses
}

TEST_CASE("a router chosen at run time computes Mixtral's values") { check_values<MixtralOf<AnyRouter>>(folder, Fp32{}); }
