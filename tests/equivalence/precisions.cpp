// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// TRAJ in float and bfloat16: a core of the cells that trajectories.cpp runs in double.
// labels: traj bytes wire
#include "support/runs.hpp"

#include <doctest/doctest.h>

using namespace toy;

namespace {

constexpr Elements single{}, mixed{Element::bf16, Element::f32, Element::f32}, narrow{Element::bf16, Element::bf16, Element::f32};

std::vector<Cell> core(Elements elements) {
  std::vector<Cell> cells;
  for (const Rule rule : {Rule::sgd, Rule::adamw, Rule::muon})
    for (const Sharding s : {Sharding::replicate, Sharding::zero_1, Sharding::zero_2, Sharding::zero_3}) {
      cells.push_back({s, {.data = 2, .tensor = 2}, Schedule::single, 2, false, rule, elements});
      cells.push_back(
          {s, {.tensor = 2, .pipe = 2, .token_split = true}, Schedule::one_forward_one_backward, 2, s == Sharding::zero_2, rule, elements});
    }
  cells.push_back({Sharding::mics, {.data = 4, .inner = 2}, Schedule::single, 1, false, Rule::adamw, elements});
  cells.push_back({Sharding::hpz, {.data = 4, .inner = 2}, Schedule::single, 2, false, Rule::sgd, elements});
  for (const Rule rule : {Rule::sgd, Rule::adamw})
    cells.push_back({Sharding::zero_3, {.data = 2, .tensor = 2, .pipe = 2, .token_split = true}, Schedule::gpipe, 2, true, rule, elements});
  return cells;
}

}  // namespace

TEST_CASE("in float, distances from one rank are those of another order of sums") {
  std::map<Rule, Run> one;
  std::map<Rule, double> noise;
  for (const Rule rule : {Rule::sgd, Rule::adamw, Rule::muon}) {
    one[rule] = train({.rule = rule, .elements = single});
    for (const Extent micro_batches : {2, 4, 8})
      noise[rule] = std::max(noise[rule], distance(train({.micro_batches = micro_batches, .rule = rule, .elements = single}), one[rule], false));
    MESSAGE(name_of(rule) << ": one-rank runs that differ in the order of sums lie " << noise[rule] << " apart");
  }
  std::map<Rule, double> worst;
  for (const Cell& c : core(single)) {
    const Run run = train(c);
    CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints));
    const double off = distance(run, one[c.rule], false);
    worst[c.rule] = std::max(worst[c.rule], off);
    const bool few = c.rule != Rule::muon && c.ranks() <= 4;
    CHECK_MESSAGE(off <= (few ? 1e-6 : std::min(1e-5, std::max(1e-6, 4 * noise[c.rule]))), name_of(c) << " lies " << off << " from one rank");
  }
  for (const auto& [rule, off] : worst) MESSAGE(name_of(rule) << ": at most " << off << " from one rank");
}

TEST_CASE("in bfloat16, losses follow those of one rank") {
  double worst = 0;
  for (const Elements elements : {mixed, narrow}) {
    std::map<Rule, Run> one;
    for (const Cell& c : core(elements)) {
      if (one[c.rule].losses.empty()) one[c.rule] = train({.rule = c.rule, .elements = elements});
      const Run run = train(c);
      CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints));
      REQUIRE(run.losses.size() == steps);
      double off = 0;
      for (Extent i = 0; i < steps; ++i) off = std::max(off, std::abs(run.losses[i] / one[c.rule].losses[i] - 1));
      worst = std::max(worst, off);
      CHECK_MESSAGE(off <= 2e-3, name_of(c) << " lies " << off << " from one rank");
    }
  }
  MESSAGE("at most " << worst << " from one rank");
}

TEST_CASE("promised bits hold in float and bfloat16 too") {
  for (const Elements elements : {single, mixed, narrow}) {
    const auto with = [&](Sharding s, Extent micro_batches, Schedule schedule = Schedule::one_forward_one_backward) {
      return train({s, {.data = 2, .inner = 2, .pipe = 2}, schedule, micro_batches, false, Rule::adamw, elements});
    };
    const Run replicate = with(Sharding::replicate, 1);
    for (const Sharding s : {Sharding::zero_1, Sharding::zero_2, Sharding::zero_3, Sharding::hpz}) CHECK(same(with(s, 1), replicate));
    const Run zero_3 = with(Sharding::zero_3, 4);
    CHECK(same(with(Sharding::zero_1, 4), with(Sharding::replicate, 4)));
    CHECK(same(with(Sharding::zero_2, 4), zero_3));
    CHECK(same(with(Sharding::hpz, 4), zero_3));
    CHECK(same(with(Sharding::zero_3, 4, Schedule::gpipe), zero_3));
  }
}
