// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// TRAJ: twenty clipped steps of a tied GPT-2 in double, over sharding x data x tensor x pipe x accumulation x optimizer on 1 to
/// 8 thread ranks, against one rank; sums that must agree to the last bit; in each cell also BYTES, WIRE and who saw which row. All other
/// policies: tests/matrix.
// labels: traj bytes wire
// timeout: 600
#include "support/runs.hpp"

#include <doctest/doctest.h>

using namespace toy;

namespace {

const Run& one_rank(Rule rule) {
  static std::map<Rule, Run> runs;
  const auto [found, is_new] = runs.try_emplace(rule);
  if (is_new) found->second = train({.rule = rule});
  return found->second;
}

constexpr double bound = 1e-12;

struct Worst {
  double distance = 0;
  std::string where{};
  Extent runs = 0;
  ~Worst() { MESSAGE(runs << " runs, at most " << distance << " from one rank: " << where); }
};

Run cell(const Cell& c, Worst& worst) {
  Run run = train(c);
  const double off = distance(run, one_rank(c.rule));
  if (++worst.runs; off >= worst.distance) worst.distance = off, worst.where = name_of(c);
  CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints));
  CHECK_MESSAGE(off <= bound, name_of(c));
  return run;
}

/// Four policies, four ways through the pipeline, with and without accumulation, two optimizers.
void product(Extent data, Extent tensor, bool token_split) {
  Worst worst;
  for (const Rule rule : {Rule::sgd, Rule::adamw})
    for (const Extent micro_batches : {1, 2}) {
      std::map<Sharding, Run> gpipe;
      for (const Schedule schedule : {Schedule::single, Schedule::gpipe, Schedule::one_forward_one_backward, Schedule::interleaved}) {
        const Extent pipe = schedule == Schedule::single ? 1 : 2;
        if (data * tensor * pipe > 8) continue;
        std::map<Sharding, Run> all;
        for (const Sharding s : {Sharding::replicate, Sharding::zero_1, Sharding::zero_2, Sharding::zero_3}) {
          const Cell c{s, {.data = data, .tensor = tensor, .pipe = pipe, .token_split = token_split}, schedule, micro_batches, false, rule};
          all[s] = cell(c, worst);
          if (schedule == Schedule::one_forward_one_backward) CHECK_MESSAGE(same(all[s], gpipe[s]), name_of(c) << ": other bits than GPipe's");
        }
        CHECK(same(all[Sharding::zero_1], all[Sharding::replicate]));
        CHECK(same(all[Sharding::zero_3], all[Sharding::zero_2]));
        // Those that reduce once and those that reduce each micro-batch part where there are several.
        if (micro_batches == 1) CHECK(same(all[Sharding::zero_2], all[Sharding::replicate]));
        if (schedule == Schedule::gpipe) gpipe = std::move(all);
      }
    }
}

}  // namespace

TEST_CASE("every step of the toy is clipped and learns, with each optimizer") {
  for (const Rule rule : {Rule::sgd, Rule::adamw, Rule::muon}) {
    const Run& run = one_rank(rule);
    CHECK_MESSAGE(run.complaints.empty(), text_of(run.complaints));
    REQUIRE(run.norms.size() == steps);
    const double least = *std::min_element(run.norms.begin(), run.norms.end());
    MESSAGE(name_of(rule) << ": loss " << run.losses.front() << " -> " << run.losses.back() << ", least norm " << least << ", clipped at " << clip);
    CHECK(least > clip);
    CHECK(run.losses.back() < run.losses.front());
    CHECK(same(run, train({.rule = rule})));
  }
}

TEST_CASE("twenty steps on pipelines alone equal one rank") { product(1, 1, false); }
TEST_CASE("twenty steps on tensor 2 equal one rank") { product(1, 2, false); }
TEST_CASE("twenty steps on tensor 2 by tokens equal one rank") { product(1, 2, true); }
TEST_CASE("twenty steps on data 2 equal one rank") { product(2, 1, false); }
TEST_CASE("twenty steps on data 2, tensor 2 equal one rank") { product(2, 2, false); }
TEST_CASE("twenty steps on data 2, tensor 2 by tokens equal one rank") { product(2, 2, true); }
TEST_CASE("twenty steps on data 4 equal one rank") { product(4, 1, false); }
TEST_CASE("twenty steps on data 4, tensor 2 equal one rank") { product(4, 2, false); }
TEST_CASE("twenty steps on data 4, tensor 2 by tokens equal one rank") { product(4, 2, true); }

TEST_CASE("hpZ has ZeRO-3's bits, and recompute those of what it plays again") {
  Worst worst;
  for (const Extent data : {2, 4})
    for (const Extent micro_batches : {1, 2}) {
      Cell c{Sharding::zero_3, {.data = data, .inner = 2, .tensor = 2, .token_split = true}, Schedule::single, micro_batches, false, Rule::adamw};
      const Run zero = cell(c, worst);
      c.recompute = true;
      CHECK(same(cell(c, worst), zero));
      c.sharding = Sharding::hpz;
      CHECK(same(cell(c, worst), zero));
    }
}

TEST_CASE("a core of cells, each of which needs most mechanisms, equals one rank") {
  Worst worst;
  cell({Sharding::zero_3, {.data = 2, .tensor = 2, .pipe = 2, .token_split = true}, Schedule::one_forward_one_backward, 2, true, Rule::sgd}, worst);
  cell({Sharding::zero_1, {.data = 2, .tensor = 2}, Schedule::single, 2, false, Rule::muon}, worst);
  cell({Sharding::replicate, {.data = 2, .tensor = 2, .pipe = 2}, Schedule::gpipe, 1, false, Rule::adamw}, worst);
}
