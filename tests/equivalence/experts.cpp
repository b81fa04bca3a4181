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
  return Sequential{Named{"e", Embedding{test::vocabulary, test::length, width}},
                    Named{"first", Residual{LayerNorm{width}, Linear{width, width}}},
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
  check_everywhere(TopK<2>{.width = width, .experts = 4, .capacity_factor = 0.7, .least_capacity = 1, .drop = Drop::at_random, .balance = {.weight = 0.5}});
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
TEST_CASE("experts over several ranks are refused where nothing sends tokens: dsx-E348") {
  const auto model = model_of(Dropless<2>{.width = width, .experts = 4});
  const std::string thrown = short_run(model, {.degrees = {.data = 4, .expert = 4}}).thrown;
  CHECK(thrown.find(": 4 experts are shared out over 4 ranks") != std::string::npos);
}
