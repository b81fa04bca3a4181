// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: traj
/// One balance loss over all layers' routers: the same training in every layout, and routers that it can't judge. Its values and gradients stand
/// against Hugging Face's in tests/models/mixtral_golden.cpp.
#include "support/short_runs.hpp"

#include <dsx/models/mixtral.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

constexpr LlamaShape shape{.vocabulary = vocabulary, .width = width, .heads = 2, .layers = 3, .hidden = 6, .tied = true};

/// Sends all tokens to expert 0 and says nothing of it.
struct Silent {
  Extent width, experts;
  void parts(auto&) const {}
  Routes operator()(Value<Common> x_RC) const { return Dense{}(x_RC); }
};

}  // namespace

TEST_CASE("routers judged together are judged alike in every layout that cuts no micro-batch") {
  const auto model = make_joint_mixtral(shape, Dropless<2>{.width = width, .experts = 4, .z_loss = 0.1}, 5);
  const ShortRun one = short_run(model, {}), without = short_run(make_mixtral(shape, Dropless<2>{.width = width, .experts = 4, .z_loss = 0.1}), {});
  REQUIRE(one.thrown == "");
  CHECK(one.losses[0] > without.losses[0] + 4.9);  // at least 1 times its weight, but for rounding
  CHECK(distance(one.weights, without.weights) > 1e-4);
  const Layout layouts[] = {{.degrees = {.data = 2}, .sharding = ZeRO<3>{}},
                            {.recompute = RecomputeUnits{}},
                            {.recompute = RecomputeOperations{}},
                            {.degrees = {.tensor = 2, .token_split = true}, .recompute = RecomputeUnits{}},
                            {.degrees = {.data = 2, .tensor = 2}, .sharding = ZeRO<2>{}},
                            {.degrees = {.pipe = 3}, .schedule = GPipe{}},
                            {.degrees = {.tensor = 2, .pipe = 2, .token_split = true}, .recompute = RecomputeUnits{}}};
  for (const Layout& layout : layouts) {
    INFO("data ", layout.degrees.data, ", tensor ", layout.degrees.tensor, ", pipe ", layout.degrees.pipe, ", recomputed ", layout.recompute.units());
    const ShortRun many = short_run(model, layout);
    CHECK(many.thrown == "");
    CHECK(distance(many, one) <= 1e-12);
  }
}

TEST_CASE("a router that doesn't say what it found can't be judged with others: dsx-E334") {
  const ShortRun run = short_run(make_joint_mixtral(shape, Silent{width, 1}, 1), {});
  CHECK(run.thrown.find("dsx-E334: layers are judged together over 1 experts, and a router gives the probabilities of 0") != std::string::npos);
}

TEST_CASE("an evaluation of routers judged together is that without them, across stages too") {
  const Dropless<2> router{.width = width, .experts = 4};
  const auto loss = [](const auto& model, const Layout& layout) {
    double found = 0;
    launch_threads(layout.degrees.ranks(), [&](Session& session) {
      const Mesh mesh{session, layout.degrees};
      Weights weights{mesh, model, layout.recipe()};
      Evaluator evaluator{weights, TokenLoss{}, length};
      const double here = evaluator.loss(batches_of(layout, mesh, 0));
      if (session.is_root()) found = here;
    });
    return found;
  };
  const double plain = loss(make_mixtral(shape, router), {});
  CHECK(plain > 1);
  const Layout layouts[] = {{}, {.degrees = {.pipe = 2}, .schedule = GPipe{}}, {.degrees = {.tensor = 2, .pipe = 2, .token_split = true}}};
  for (const Layout& layout : layouts) CHECK(std::abs(loss(make_joint_mixtral(shape, router, 5), layout) - plain) <= 1e-12);
}
