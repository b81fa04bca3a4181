// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: traj
/// Training is the same on one rank and however experts are shared out over ranks: under every sharding, beside tensor ranks and pipelines,
/// recomputed and offloaded, whatever tokens choose.
#include "support/expert_axis.hpp"

#include <doctest/doctest.h>

using namespace dsx;
using test::Layout;
using test::ShortRun;
using test::Told;
using test::usual_feed;
using test::usual_optimizer;
using test::Watched;
using test::width;

namespace {

/// Runs in `layouts` equal one of the first.
template <class Model, class Optimizer = Sgd, class Feed = decltype(usual_feed)>
void check_alike(const Model& model, const std::vector<Layout>& layouts, Optimizer optimizer = usual_optimizer, Feed feed = usual_feed) {
  const ShortRun one = test::short_run_of(model, layouts.front(), 3, optimizer, feed);
  REQUIRE(one.thrown == "");
  for (const Layout& layout : layouts) {
    INFO(test::text_of(layout));
    const ShortRun many = test::short_run_of(model, layout, 3, optimizer, feed);
    CHECK(many.thrown == "");
    CHECK(distance(many, one) <= 1e-12);
  }
}

using All = Rest<OptimizerState, Gradients, Parameters, Activations>;
constexpr Dropless<2> dropless{.width = width, .experts = 4, .balance = {.weight = 0.5, .by_sequence = true}, .z_loss = 0.1};

/// Expert ranks 1, 2, 4 by data ranks 2, 4, with what else there is.
const std::vector<Layout>& layouts() {
  static const std::vector<Layout> all{
      {},
      {.degrees = {.data = 2, .expert = 2}},
      {.degrees = {.data = 4, .expert = 2}, .sharding = ZeRO<1>{}},
      {.degrees = {.data = 4, .expert = 4}, .sharding = ZeRO<2>{}},
      {.degrees = {.data = 4, .expert = 2}, .sharding = ZeRO<3>{}, .recompute = RecomputeUnits{}},
      {.degrees = {.data = 4, .expert = 4}, .sharding = ZeRO<3>{}, .recompute = RecomputeOperations{}},
      {.degrees = {.data = 4, .inner = 2, .expert = 2}, .sharding = MiCS{}},
      {.degrees = {.data = 4, .inner = 4, .expert = 2}, .sharding = MiCS{}},
      {.degrees = {.data = 4, .inner = 2, .expert = 4}, .sharding = HpZ{}},
      {.degrees = {.data = 4, .inner = 4, .expert = 2}, .sharding = HpZ{}},
      {.degrees = {.data = 2, .tensor = 2, .expert = 2}, .recompute = RecomputeUnits{}},
      {.degrees = {.data = 2, .tensor = 2, .expert = 2, .token_split = true}, .sharding = ZeRO<2>{}, .recompute = RecomputeOperations{}},
      {.degrees = {.data = 4, .tensor = 2, .expert = 4, .token_split = true}, .sharding = ZeRO<1>{}},
      {.degrees = {.data = 4, .tensor = 2, .expert = 2}, .sharding = ZeRO<3>{}},
      {.degrees = {.data = 2, .pipe = 2, .expert = 2}, .sharding = ZeRO<2>{}},
      {.degrees = {.data = 2, .pipe = 4, .expert = 2}, .schedule = GPipe{}, .recompute = RecomputeUnits{}},
      {.degrees = {.data = 2, .pipe = 2, .expert = 2}, .sharding = ZeRO<3>{}, .schedule = Interleaved<2>{}},
      {.degrees = {.data = 2, .tensor = 2, .pipe = 2, .expert = 2, .token_split = true}, .sharding = ZeRO<1>{}},
      {.degrees = {.data = 2, .expert = 2}, .sharding = ZeRO<1>{}, .offload = All{Tier::host}},
      {.degrees = {.data = 4, .expert = 2}, .sharding = ZeRO<3>{}, .offload = All{Tier::host}},
      {.degrees = {.data = 2, .pipe = 2, .expert = 2}, .sharding = ZeRO<2>{}, .recompute = RecomputeUnits{}, .offload = All{Tier::disk}}};
  return all;
}
/// Without those that cut the micro-batches on which seats depend: none here does.
template <class Optimizer>
void check_with(Optimizer optimizer) {
  check_alike(test::mixture(dropless),
              {{},
               {.degrees = {.data = 2, .expert = 2}, .sharding = ZeRO<1>{}},
               {.degrees = {.data = 4, .expert = 2}, .sharding = ZeRO<3>{}},
               {.degrees = {.data = 4, .inner = 4, .expert = 2}, .sharding = MiCS{}},
               {.degrees = {.data = 2, .tensor = 2, .expert = 2, .token_split = true}, .sharding = ZeRO<2>{}},
               {.degrees = {.data = 2, .pipe = 2, .expert = 2}, .sharding = ZeRO<1>{}}},
              optimizer);
}

/// Routes once, and sends the same rows twice: to one layer without weights, and to another.
struct TwoWays {
  Told router;
  void parts(auto&) const {}
  Value<Common> operator()(Value<Common> x_RC) const {
    Pass& p = *x_RC.pass;
    const Routes routes = router(x_RC);
    const ExpertRows order = expert_rows(p, x_RC.node, routes);
    const Node rows = permute(p, x_RC.node, order);
    const Node bent = among_experts(p, rows, order, routes, [](Value<Common> here) { return gelu(here, Gelu::erf); });
    const Node thinned = among_experts(p, rows, order, routes, [](Value<Common> here) { return dropout(here, 0.4); });
    return Value<Common>{&p, combine(p, bent, order, routes.weights)} + Value<Common>{&p, combine(p, thinned, order, routes.weights)};
  }
};

}  // namespace

TEST_CASE("experts shared out over ranks learn what they learn on one") { check_alike(test::mixture(dropless), layouts()); }
TEST_CASE("experts shared out over ranks learn alike by AdamW") { check_with(AdamW{.rate = 1e-2, .epsilon = 1e-4}); }
TEST_CASE("experts shared out over ranks learn alike by Muon, matrix by matrix of a stack") {
  check_with(Muon{.rate = 1e-2, .others = {.rate = 1e-2, .epsilon = 1e-4}});
}
TEST_CASE("seats are those of a data rank's micro-batch, whatever the expert degree: by lot, by probability, and with room for all") {
  test::Travelled seen;
  for (const auto& [factor, drop] : {std::pair{0.7, Drop::at_random}, {0.7, Drop::by_probability}, {2.0, Drop::by_position}}) {
    seen = {};
    const TopK<2> router{
        .width = width, .experts = 4, .capacity_factor = factor, .least_capacity = 1, .drop = drop, .balance = {.weight = 0.5}, .z_loss = 0.1};
    check_alike(test::mixture(Watched{router, &seen}), {{},
                                                        {.degrees = {.data = 4}},
                                                        {.degrees = {.data = 4, .expert = 2}, .sharding = ZeRO<1>{}, .recompute = RecomputeUnits{}},
                                                        {.degrees = {.data = 4, .expert = 4}, .sharding = ZeRO<3>{}},
                                                        {.degrees = {.data = 2, .tensor = 2, .expert = 2, .token_split = true}},
                                                        {.degrees = {.data = 2, .pipe = 2, .expert = 2}, .sharding = ZeRO<2>{}}});
    CHECK((seen.dropped[0] > 0) == (factor < 1));
  }
}
TEST_CASE("a balance loss over ranks is that of one rank that has all their rows") {
  const Dropless<2> router{.width = width, .experts = 4, .balance = {.weight = 5, .over_ranks = true}};
  const auto all_at_once = [](const Layout&, const Mesh& mesh, Extent step) {
    std::vector<MicroBatch> batches(1);
    const Extent each = 4 / mesh.size(Axes::data);
    for (Extent s = 0; s < each; ++s) test::add_sequence(batches[0], 4 * step + mesh.coordinate(Axes::data) * each + s);
    return batches;
  };
  const auto learn = [&](const auto& r, const Degrees& degrees) {
    test::Tensors tensors;
    launch_threads(degrees.ranks(), [&](Session& session) {
      const Mesh mesh{session, degrees};
      Weights weights{mesh, test::mixture(r), Layout{}.recipe()};
      Trainer trainer{weights, usual_optimizer, TokenLoss{}, {.micro_batches = 1, .rows = 4 * test::length / degrees.data}};
      for (Extent step = 0; step < 3; ++step) trainer.step(all_at_once({}, mesh, step));
      test::Tensors mine = test::tensors_of(weights);
      if (session.is_root()) tensors = std::move(mine);
    });
    return tensors;
  };
  const test::Tensors one = learn(router, {});
  for (const Degrees& d : {Degrees{.data = 2}, Degrees{.data = 4, .expert = 2}, Degrees{.data = 4, .expert = 4},
                           Degrees{.data = 2, .tensor = 2, .expert = 2, .token_split = true}}) {
    INFO("data ", d.data, ", expert ", d.expert);
    CHECK(test::distance(learn(router, d), one) <= 1e-12);
  }
  auto apart = router;
  apart.balance.over_ranks = false;
  CHECK(test::distance(learn(apart, {}), one) <= 1e-12);
  CHECK(test::distance(learn(apart, {.data = 2}), one) > 1e-6);
}
TEST_CASE("all tokens to one expert, to experts of one rank, or dropped: ranks that get nothing, or send nothing, learn alike") {
  for (const auto chosen : {+[](RowId, Extent choice) { return choice == 0 ? 3 : -1; }, +[](RowId, Extent choice) { return int(choice); },
                            +[](RowId, Extent) { return -1; }, +[](RowId id, Extent choice) { return id < 16 ? -1 : int(id + choice) % 4; },
                            +[](RowId id, Extent choice) { return int(id / 8 + choice) % 4; }})
    check_alike(test::mixture(Told{4, chosen}), {{},
                                                 {.degrees = {.data = 2, .expert = 2}},
                                                 {.degrees = {.data = 4, .expert = 4}, .sharding = ZeRO<3>{}},
                                                 {.degrees = {.data = 4, .expert = 4}, .recompute = RecomputeUnits{}},
                                                 {.degrees = {.data = 2, .pipe = 2, .expert = 2}, .sharding = ZeRO<2>{}}});
}
TEST_CASE("ranks without a row take part") {
  const auto feed = [](const Layout& layout, const Mesh& mesh, Extent step) {
    std::vector<MicroBatch> all(layout.micro_batches());
    for (Extent m = 0; m < all.size(); ++m)
      if (const Extent s = mesh.coordinate(Axes::data) * all.size() + m; s < 2) test::add_sequence(all[m], 4 * step + s);
    return all;
  };
  check_alike(test::mixture(dropless),
              {{},
               {.degrees = {.data = 2, .expert = 2}},
               {.degrees = {.data = 4, .expert = 4}, .sharding = ZeRO<2>{}},
               {.degrees = {.data = 4, .tensor = 2, .expert = 2, .token_split = true}, .recompute = RecomputeUnits{}}},
              usual_optimizer, feed);
}
TEST_CASE("rows that travel twice have the gradients of both ways") {
  const TwoWays layer{{4, [](RowId id, Extent choice) { return int(id * 3 + choice) % 4; }}};
  check_alike(Sequential{Named{"e", Embedding{test::vocabulary, test::length, width}}, Named{"two", layer}, Named{"bias", Bias{width}},
                         Named{"h", Chain{LayerNorm{width}, Head{test::vocabulary, width}}}},
              {{},
               {.degrees = {.data = 2, .expert = 2}},
               {.degrees = {.data = 4, .expert = 4}, .recompute = RecomputeUnits{}},
               {.degrees = {.data = 2, .tensor = 2, .expert = 2, .token_split = true}}});
}
TEST_CASE("an evaluation on ranks that share out experts is that of one rank") {
  const auto loss_on = [](const Degrees& degrees) {
    std::vector<double> losses(degrees.ranks());
    launch_threads(degrees.ranks(), [&](Session& session) {
      const Mesh mesh{session, degrees};
      Weights weights{mesh, test::mixture(dropless), Layout{.sharding = ZeRO<3>{}}.recipe()};
      Evaluator evaluator{weights, TokenLoss{}, test::length};
      losses[session.rank()] = evaluator.loss(test::batches_of({.degrees = degrees}, mesh, 0));
    });
    return losses;
  };
  const double one = loss_on({}).front();
  for (const Degrees& d : {Degrees{.data = 2, .expert = 2}, Degrees{.data = 4, .expert = 4}, Degrees{.data = 2, .pipe = 2, .expert = 2}})
    for (const double loss : loss_on(d)) CHECK(std::abs(loss - one) <= 1e-13);
}
