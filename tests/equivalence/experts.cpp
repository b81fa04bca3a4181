// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: traj bytes
/// Training of mixtures of experts is the same in every layout, losses of their routers among what is minimised.
#include "support/short_runs.hpp"

#include <doctest/doctest.h>

using namespace dsx;
using test::Layout;
using test::short_run;
using test::ShortRun;

namespace {

constexpr Extent width = test::width;

template <class Router>
auto model_of(const Router& router) {
  const Experts experts{router.experts, router, Chain{Mlp{width, 6}, Dropped{0.2}}};
  return Sequential{Named{"e", Embedding{test::vocabulary, test::length, width}}, Named{"first", Residual{LayerNorm{width}, Linear{width, width}}},
                    Named{"moe", Residual{LayerNorm{width}, experts}},
                    Named{"both", Residual{ResidualExpert{width, Mlp{width, 5}, SharedExpert{Mlp{width, 3}, experts}}}},
                    Named{"h", Chain{LayerNorm{width}, Head{test::vocabulary, width}}}};
}

template <class Router>
void check_everywhere(const Router& router) {
  const auto model = model_of(router);
  const ShortRun one = short_run(model, {});
  REQUIRE(one.thrown == "");
  const Layout layouts[] = {{.degrees = {.data = 2}, .sharding = ZeRO<3>{}},
                            {.degrees = {.data = 4}, .sharding = ZeRO<1>{}},
                            {.recompute = RecomputeUnits{}},
                            {.degrees = {.tensor = 2, .token_split = true}, .recompute = RecomputeOperations{}},
                            {.degrees = {.tensor = 2}, .recompute = RecomputeUnits{}},
                            {.degrees = {.data = 2, .tensor = 2, .token_split = true}, .sharding = ZeRO<2>{}},
                            {.degrees = {.pipe = 3}, .schedule = GPipe{}},
                            {.degrees = {.tensor = 2, .pipe = 2, .token_split = true}, .recompute = RecomputeUnits{}}};
  for (const Layout& layout : layouts) {
    INFO("data ", layout.degrees.data, ", tensor ", layout.degrees.tensor, ", pipe ", layout.degrees.pipe, ", recomputed ", layout.recompute.units());
    const ShortRun many = short_run(model, layout);
    CHECK(many.thrown == "");
    CHECK(distance(many, one) <= 1e-12);
  }
}

}  // namespace

TEST_CASE("experts without a limit learn alike in every layout, losses by sequence and of logits included") {
  check_everywhere(Dropless<2>{.width = width, .experts = 4, .balance = {.weight = 0.5, .by_sequence = true}, .z_loss = 0.1});
}
TEST_CASE("experts with seats by lot learn alike in every layout that cuts no micro-batch") {
  check_everywhere(
      TopK<2>{.width = width, .experts = 4, .capacity_factor = 0.7, .least_capacity = 1, .drop = Drop::at_random, .balance = {.weight = 0.5}});
}
TEST_CASE("a router's losses are learnt from, are means over the step, and no part of an evaluation") {
  const auto quiet = model_of(Dropless<2>{.width = width, .experts = 4}), loud = model_of(Dropless<2>{.width = width, .experts = 4, .z_loss = 10});
  const ShortRun without = short_run(quiet, {}, 1), with = short_run(loud, {}, 1);
  CHECK(test::distance(without.gradients.at("moe.1.router.gate"), with.gradients.at("moe.1.router.gate")) > 0.1);
  // Logits start near 0, so each layer's loss is 10 times the square of log 4, whatever the number of rows and micro-batches.
  CHECK(std::abs(with.losses[0] - without.losses[0] - 20 * std::pow(std::log(4), 2)) < 2);
  std::vector<double> losses;
  for (const double z_loss : {0.0, 10.0}) {
    Session session{self_transport()};
    const Mesh mesh{session, {}};
    Weights weights{mesh, model_of(Dropless<2>{.width = width, .experts = 4, .z_loss = z_loss}), Recipe{}};
    Evaluator evaluator{weights, TokenLoss{}, test::length};
    losses.push_back(evaluator.loss(test::batches_of({}, mesh, 0)));
  }
  CHECK(losses[0] == losses[1]);
}
TEST_CASE("losses by sequence do not depend on how sequences share micro-batches") {
  const auto learn = [](Extent micro_batches, bool by_sequence) {
    Session session{self_transport()};
    const Mesh mesh{session, {}};
    Weights weights{mesh, model_of(Dropless<2>{.width = width, .experts = 4, .balance = {.weight = 5, .by_sequence = by_sequence}, .z_loss = 1}),
                    Layout{}.recipe()};
    Trainer trainer{weights, Sgd{.rate = 0.3}, TokenLoss{}, {.micro_batches = micro_batches, .rows = 4 * test::length / micro_batches}};
    for (Extent step = 0; step < 3; ++step) {
      std::vector<MicroBatch> batches(micro_batches);
      for (Extent s = 0; s < 4; ++s) test::add_sequence(batches[s * micro_batches / 4], 4 * step + s);
      trainer.step(batches);
    }
    return test::tensors_of(weights);
  };
  const test::Tensors four = learn(4, true);
  CHECK(test::distance(learn(1, true), four) <= 1e-12);
  CHECK(test::distance(learn(2, true), four) <= 1e-12);
  CHECK(test::distance(learn(4, false), four) <= 1e-12);  // a micro-batch each
  CHECK(test::distance(learn(1, false), four) > 1e-6);
}
TEST_CASE("experts learn in bf16 what they learn in double, but for rounding") {
  std::vector<double> losses[2];
  for (const bool narrow : {false, true}) {
    Session session{self_transport()};
    const Mesh mesh{session, {}};
    Weights weights{mesh, model_of(Dropless<2>{.width = width, .experts = 4, .z_loss = 0.1}),
                    AnyRecipe{AnySharding{}, AnySchedule{}, AnyOffload{}, narrow ? AnyPrecision{Bf16{}} : AnyPrecision{Fp64{}}, AnyRecompute{}}};
    Trainer trainer{weights, Sgd{.rate = 0.3}, TokenLoss{}, {.micro_batches = 4, .rows = test::length}};
    for (Extent step = 0; step < 20; ++step) losses[narrow].push_back(trainer.step(test::batches_of({}, mesh, 0)).loss);
  }
  CHECK(losses[0].back() < 0.9 * losses[0].front());
  for (Extent step = 0; step < 20; ++step) CHECK(std::abs(losses[1][step] / losses[0][step] - 1) < 0.02);
}
