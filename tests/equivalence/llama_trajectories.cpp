// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// TRAJ of Llama, Qwen2 and Mixtral: twenty clipped steps in double of a small model with grouped queries and rotary positions, over a core of
/// sharding x data x tensor x pipe x accumulation on thread ranks, against one rank; BYTES and WIRE of every cell against formulas and the dry plan.
// labels: traj bytes wire
// timeout: 600
#include "support/toy_llama.hpp"

#include <doctest/doctest.h>

using namespace toy;

namespace {

void check_core(const auto& learner_of, bool with_experts = false) {
  for (const Rule rule : {Rule::sgd, Rule::adamw, Rule::muon}) {
    const Cell single{.rule = rule};
    const Run one = train(single, recipe_of(single), steps, learner_of(single));
    CHECK_MESSAGE(one.complaints.empty(), text_of(one.complaints));
    REQUIRE(one.losses.size() == steps);
    CHECK(*std::min_element(one.norms.begin(), one.norms.end()) > clip);
    CHECK(one.losses.back() < one.losses.front());
    std::vector<Cell> cells = llama_cells(rule);
    if (with_experts)
      for (const Cell& c : expert_cells(rule)) cells.push_back(c);
    for (const Cell& c : cells) {
      const Run run = train(c, recipe_of(c), steps, learner_of(c));
      CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints));
      const double off = distance(run, one);
      CHECK_MESSAGE(off <= 1e-12, name_of(c) << " lies " << off << " from one rank");
    }
  }
}

}  // namespace

TEST_CASE("twenty steps of Llama on a core of cells equal one rank") { check_core(learner_of_llama); }
TEST_CASE("twenty steps of Qwen2 on a core of cells equal one rank") { check_core(learner_of_qwen2); }
TEST_CASE("twenty steps of Mixtral on a core of cells, experts on several ranks among them, equal one rank") { check_core(learner_of_mixtral, true); }
