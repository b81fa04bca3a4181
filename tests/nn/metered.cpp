// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a router's meter counts: the same in every layout, nothing in evaluations, and what its numbers say.
#include "support/short_runs.hpp"

#include <dsx/nn/metered.hpp>

#include <doctest/doctest.h>

#include <mutex>

using namespace dsx;
using namespace dsx::test;

namespace {

template <class Router>
auto model_of(const Router& router) {
  return Sequential{Named{"e", Embedding{vocabulary, length, width}}, Named{"first", Residual{LayerNorm{width}, Linear{width, width}}},
                    Named{"moe", Residual{LayerNorm{width}, Experts{4, Metered{router}, Mlp{width, 6}}}},
                    Named{"h", Chain{LayerNorm{width}, Head{vocabulary, width}}}};
}

/// After three steps; every rank says the same.
template <class Router>
std::vector<double> counts_of(const Router& router, const Layout& layout) {
  std::vector<double> counts;
  std::mutex mutex;
  const ShortRun run = short_run(model_of(router), layout, 3, TokenLoss{}, [&](auto& weights) {
    const auto here = weights.template buffer<double>("moe.1.router.load");
    const std::lock_guard lock{mutex};
    CHECK((counts.empty() || counts == here));
    counts = here;
  });
  CHECK(run.thrown == "");
  return counts;
}
double sum_of(const std::vector<double>& counts, Extent part) { return std::accumulate(&counts[part * 4], &counts[part * 4] + 4, 0.0); }

}  // namespace

TEST_CASE("a meter counts the same in every layout, once for what is played again") {
  const TopK<2> router{.width = width, .experts = 4, .capacity_factor = 0.7, .least_capacity = 1};
  const std::vector<double> one = counts_of(router, {});
  REQUIRE(one.size() == 12);
  double rows = 0;
  for (Extent number = 0; number < 12; ++number) rows += double(3 + number * 5 % (length - 2));
  CHECK(sum_of(one, 0) == 2 * rows);
  CHECK(sum_of(one, 1) < sum_of(one, 0));
  CHECK(sum_of(one, 2) == doctest::Approx(rows).epsilon(1e-12));
  const Layout layouts[] = {{.degrees = {.data = 2}, .sharding = ZeRO<3>{}},
                            {.recompute = RecomputeUnits{}},
                            {.degrees = {.tensor = 2, .token_split = true}, .recompute = RecomputeUnits{}},
                            {.degrees = {.data = 2, .tensor = 2}},
                            {.degrees = {.pipe = 2}, .schedule = GPipe{}}};
  for (const Layout& layout : layouts) CHECK(distance(counts_of(router, layout), one) <= 1e-12);
}

TEST_CASE("a meter without a limit counts no drop, and an evaluation nothing") {
  const auto counts = counts_of(Dropless<2>{.width = width, .experts = 4}, {});
  CHECK(sum_of(counts, 0) == sum_of(counts, 1));
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  Weights weights{mesh, model_of(Dropless<2>{.width = width, .experts = 4}), Recipe{}};
  Evaluator evaluator{weights, TokenLoss{}, length};
  evaluator.loss(batches_of({}, mesh, 0));
  CHECK(weights.buffer("moe.1.router.load") == std::vector<float>(12));
}

TEST_CASE("a load says shares, balance and drops") {
  const Load even{std::vector<float>{10, 10, 10, 10, 10, 10, 5, 5, 5, 5, 5, 5}};
  CHECK(even.least == doctest::Approx(1));
  CHECK(even.most == doctest::Approx(1));
  CHECK(even.entropy == doctest::Approx(1));
  CHECK(even.balance == doctest::Approx(1));
  CHECK(even.dropped == doctest::Approx(0.25));
  const Load one{std::vector<float>{8, 0, 8, 0, 6, 2}};
  CHECK(one.least == 0);
  CHECK(one.most == doctest::Approx(2));
  CHECK(one.entropy == 0);
  CHECK(one.balance == doctest::Approx(1.5));
  CHECK(one.dropped == 0);
  CHECK(Load{std::vector<float>(9)}.most == 0);
}
