// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// TRAJ of Llama and Qwen2: twenty clipped steps in double of a small model with grouped queries and rotary positions, over a core of sharding x
/// data x tensor x pipe x accumulation on thread ranks, against one rank; measured bytes against the dry plan.
// labels: traj bytes
// timeout: 600
#include "support/runs.hpp"

#include <dsx/models/llama.hpp>

#include <doctest/doctest.h>

using namespace toy;

namespace {

/// Six query heads on three keys over 2 ranks are 4 on 2 and 2 on 1; 22 hidden channels 11 and 11; 29 entries 15 and 14.
LlamaShape shape(bool tied) {
  return {.vocabulary = vocabulary,
          .width = 12,
          .heads = 6,
          .key_value_heads = 3,
          .head_dim = 4,
          .layers = blocks,
          .hidden = 21,
          .rope = {.base = 100, .scaling = Rope::Scaling::llama3, .factor = 4, .trained = 16, .slow = 1, .fast = 4},
          .tied = tied,
          .attention_dropout = 0.1};
}
const auto llama = [] { return make_llama(shape(false)); };
const auto qwen2 = [] { return make_qwen2(shape(true)); };

Run train_model(const auto& make, const Cell& c) {
  Run run;
  Complaints complaints;
  const auto rank = [&](Session& session) {
    const Mesh mesh{session, c.degrees};
    Weights weights{mesh, make(), recipe_of(c)};
    Trainer trainer{weights, optimizer_of(c.rule), TokenLoss{.chunk = 10}, options_of(c)};
    for (Extent step = 0; step < steps; ++step) {
      const Verdict v = trainer.step(c.feed()(step, mesh.coordinate(Axes::data)));
      if (session.is_root()) run.losses.push_back(v.loss), run.norms.push_back(std::sqrt(v.squared_norm));
    }
    Session dry = Session::dry(session.rank(), session.ranks());
    const Mesh dry_mesh{dry, c.degrees};
    Weights dry_weights{dry_mesh, make(), recipe_of(c)};
    Trainer dry_trainer{dry_weights, optimizer_of(c.rule), TokenLoss{.chunk = 10}, options_of(c)};
    dry_trainer.step({});
    for (Extent k = 0; k < categories; ++k)
      if (const Extent measured = session.memory.tally(Category(k)).peak, planned = dry.memory.tally(Category(k)).peak; measured != planned)
        complaints.add("BYTES: rank ", session.rank(), ": ", category_names[k], " peak at ", measured, " bytes, the plan said ", planned);
    for (const ParameterRecord& r : weights.records()) {
      auto w = weights.template weight<double>(r.path);
      if (session.is_root()) run.weights.push_back({r.path, std::move(w)});
    }
  };
  try {
    launch_threads(c.ranks(), rank, {.time_limit = std::chrono::seconds{60}});
  } catch (const std::exception& e) {
    complaints.add(e.what());
  }
  run.complaints = complaints.take();
  return run;
}

void check_core(const auto& make) {
  for (const Rule rule : {Rule::sgd, Rule::adamw, Rule::muon}) {
    const Run one = train_model(make, {.rule = rule});
    REQUIRE(one.losses.size() == steps);
    CHECK(*std::min_element(one.norms.begin(), one.norms.end()) > clip);
    CHECK(one.losses.back() < one.losses.front());
    const Cell cells[] = {
        {Sharding::replicate, {.tensor = 2}, Schedule::single, 1, false, rule},
        {Sharding::replicate, {.tensor = 3, .token_split = true}, Schedule::single, 2, false, rule},
        {Sharding::zero_1, {.data = 2, .pipe = 2}, Schedule::one_forward_one_backward, 2, false, rule},
        {Sharding::zero_3, {.data = 2, .tensor = 2, .token_split = true}, Schedule::single, 1, true, rule},
        {Sharding::zero_2, {.tensor = 2, .pipe = 2}, Schedule::gpipe, 2, false, rule},
        {Sharding::zero_3, {.data = 2, .tensor = 2, .pipe = 2, .token_split = true}, Schedule::one_forward_one_backward, 2, true, rule},
    };
    for (const Cell& c : cells) {
      const Run run = train_model(make, c);
      CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints));
      const double off = distance(run, one);
      CHECK_MESSAGE(off <= 1e-12, name_of(c) << " lies " << off << " from one rank");
    }
  }
}

}  // namespace

TEST_CASE("twenty steps of Llama on a core of cells equal one rank") { check_core(llama); }
TEST_CASE("twenty steps of Qwen2 on a core of cells equal one rank") { check_core(qwen2); }
