// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Interleaved pipelines: twenty steps equal one rank; an evaluation goes through all chunks; too few units are refused.
// labels: traj bytes wire
#include "support/runs.hpp"

#include <dsx/infer/generator.hpp>

#include <doctest/doctest.h>

using namespace toy;

TEST_CASE("two chunks a stage equal one rank") {
  const Run one = train({.rule = Rule::adamw});
  // With 5, the messages of several chunks would mix if they shared a lane.
  for (const Extent micro_batches : {1, 2, 4, 5}) {
    const Cell c{Sharding::zero_2, {.pipe = 2}, Schedule::interleaved, micro_batches, false, Rule::adamw};
    const Run run = train(c);
    CHECK_MESSAGE(run.complaints.empty(), text_of(run.complaints));
    CHECK_MESSAGE(distance(run, one) <= 1e-12, name_of(c));
  }
}

TEST_CASE("an evaluation and a generation go through all chunks of a stage") {
  const auto loss_on = [](Extent pipe, AnySchedule schedule) {
    double loss = 0;
    std::vector<std::vector<int>> tokens;
    launch_threads(pipe, [&](Session& session) {
      const Mesh mesh{session, {.pipe = pipe}};
      Weights weights{mesh, make_model(), AnyRecipe{AnySharding{}, schedule, AnyOffload{}, AnyPrecision{Fp64{}}, AnyRecompute{}}};
      Evaluator evaluator{weights, TokenLoss{.chunk = 10}, sequences * length};
      const auto batches = Feed{1, 2}(0, 0);
      const double mine = evaluator.loss(batches);
      Generator generator{weights, {.sequences = 2, .length = length, .vocabulary = vocabulary}};
      const std::vector<std::vector<int>> prompts{{1, 2, 3}, {4}};
      auto made = generator.generate(prompts, 4, Decoding{});
      if (session.is_root()) loss = mine, tokens = std::move(made);
    }, {.time_limit = std::chrono::seconds{60}});
    return std::pair{loss, tokens};
  };
  const auto [loss, tokens] = loss_on(1, SingleStage{});
  const auto [interleaved, tokens_of_chunks] = loss_on(2, Interleaved<2>{});
  CHECK(loss > 0);
  CHECK(interleaved == doctest::Approx(loss).epsilon(1e-13));
  CHECK(tokens_of_chunks == tokens);
}

TEST_CASE("fewer units than chunks are refused with both numbers") {
  launch_threads(2, [](Session& session) {
    const Mesh mesh{session, {.pipe = 2}};
    CHECK_THROWS_WITH_AS(
        (Weights{mesh, make_model(), Recipe{Interleaved<3>{}}}),
        doctest::Contains("dsx-E303: the model's 5 units can't make 2 pipeline stages of 3 chunks"), Error);
  });
}
