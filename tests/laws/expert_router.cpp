// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Dense and routers as a user may write them keep the laws of expert routers, and the laws catch what breaks them.
#include "expert_router_laws.hpp"

#include <dsx/nn/any_router.hpp>
#include <dsx/nn/metered.hpp>
#include <dsx/ops/linear.hpp>

#include <atomic>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

enum class Fault { none, expert, twice, dropped_weighs, not_finite, counts, capacity, shape, dry_numbers, by_rank, fickle };

/// Writes the tables of a router that shares tokens out by row id: choice k of row i is expert (i + k) mod experts while it has room.
struct ByRowId : Operation {
  static constexpr const char* name = "by row id";
  Node x, chosen, weights, counts;
  Extent capacity;
  Fault fault;
  std::int32_t shift;
  void forward(Pass& p) const {
    const View to = p.view(chosen), w = p.view(weights), n = p.view(counts);
    const RowId* ids = p.rows(x).ids;
    p.launch([=, this] {
      const Extent experts = n.size(), choices = w.shape.columns;
      std::fill_n(n.pointer<std::int32_t>(), experts, 0);
      for (Extent r = 0; r < w.shape.rows; ++r)
        for (Extent k = 0; k < choices; ++k) {
          const bool again = fault == Fault::twice && r == 0;
          const Extent e = (ids[r] + Extent(shift) + (again ? 0 : k)) % experts;
          const bool room = fault == Fault::capacity || Extent(n.at<std::int32_t>(0, e)) < capacity;
          if (room) ++n.at<std::int32_t>(0, e);
          to.at<std::int32_t>(r, k) = room ? std::int32_t(e) : Routes::dropped;
          w.at<float>(r, k) = room || fault == Fault::dropped_weighs ? 1.0F / float(choices) : 0.0F;
        }
      if (fault == Fault::expert) to.at<std::int32_t>(0, 0) = std::int32_t(experts);
      if (fault == Fault::not_finite) w.at<float>(0, 0) = std::numeric_limits<float>::infinity();
      if (fault == Fault::counts) ++n.at<std::int32_t>(0, 0);
    });
  }
  void towards_inputs(Pass&) const {}
};

std::atomic<std::int32_t> asked{0};

/// The archetype: two of three experts, or as told; no weights of its own.
struct RoundRobin {
  Extent experts = 3, choices = 2, capacity = 0;  // 0: no limit
  Fault fault = Fault::none;
  void parts(auto&) const {}
  Routes operator()(Value<Common> x_RC) const {
    Pass& p = *x_RC.pass;
    const Extent bound = p.rows(x_RC.node).bound, most = capacity ? capacity : bound;
    const Routes routes{.experts = experts,
                        .choices = choices,
                        .capacity = fault == Fault::dry_numbers && p.dry() ? most - 1 : most,
                        .chosen = p.make<Common>(choices + (fault == Fault::shape), Element::i32).node,
                        .weights = p.make<Common>(choices, Element::f32).node,
                        .counts = p.make({.bound = 1, .live = 1}, experts, Element::i32)};
    const std::int32_t shift = fault == Fault::fickle ? asked++ : fault == Fault::by_rank ? std::int32_t(p.tensor().rank()) : 0;
    p.run(ByRowId{{}, x_RC.node, routes.chosen, routes.weights, routes.counts, most, fault, shift});
    return routes;
  }
};
static_assert(ExpertRouter<RoundRobin>);

/// Choices as RoundRobin's, weighed by a product with weights that the router owns.
struct Gated {
  RoundRobin choose{4, 2};
  Parameter gate;
  explicit Gated(Extent channels) : gate{{channels, 2}, {0, 0.5F}} {}
  void parts(auto& visit) const { visit("gate", gate); }
  Routes operator()(Value<Common> x_RC) const {
    Routes routes = choose(x_RC);
    routes.weights = linear<op::Matmul>(x_RC, gate).node;
    return routes;
  }
};
static_assert(ExpertRouter<Gated>);

struct WithoutParts {
  Routes operator()(Value<Common>) const { return {}; }
};
struct WithoutRoutes {
  void parts(auto&) const {}
  Value<Common> operator()(Value<Common> x) const { return x; }
};
static_assert(!ExpertRouter<WithoutParts> && !ExpertRouter<WithoutRoutes> && !Policy<Dense>);

std::string broken_by(Fault fault, Extent capacity = 0) {
  return laws::broken([&] { laws::expert_router(RoundRobin{.capacity = capacity, .fault = fault}); });
}

}  // namespace

TEST_CASE("Dense keeps the laws of expert routers and moves nothing") {
  laws::expert_router(Dense{});
  laws::RoutingLog log;
  laws::route(Dense{}, {.data = 2}, log);
  for (const laws::Routed& said : log.real) {
    CHECK_FALSE(said.routes.permutes());
    CHECK(said.routes.bound(said.bound) == said.bound);
  }
}
TEST_CASE("the archetype of expert routers keeps their laws, with and without a limit of rows") {
  laws::expert_router(RoundRobin{});
  laws::expert_router(RoundRobin{.experts = 5, .choices = 1});
  laws::expert_router(RoundRobin{.capacity = 3});
  const Routes limited{.experts = 4, .choices = 2, .capacity = 3}, free{.experts = 4, .choices = 2, .capacity = 32};
  CHECK(limited.bound(32) == 12);
  CHECK(free.bound(32) == 64);
}
TEST_CASE("a router that owns weights keeps the laws of expert routers, and the weights learn") {
  laws::expert_router(Gated{toy::width});
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  laws::RoutingLog log;
  Weights weights{mesh,
                  Sequential{Embedding{toy::vocabulary, toy::length, toy::width}, laws::Routing<Gated>{Gated{toy::width}, &log},
                             Chain{LayerNorm{toy::width}, Head{toy::vocabulary, toy::width}}},
                  Recipe{}};
  const toy::Feed feed{1, 1};
  Trainer trainer{weights, AdamW{}, TokenLoss{.chunk = 10}, {.rows = feed.rows()}};
  trainer.step(feed(0, 0));
  const auto gradient = weights.gradient<float>("1.router.gate");
  CHECK(std::count(gradient.begin(), gradient.end(), 0.0F) == 0);
}
TEST_CASE("TopK keeps the laws of expert routers, whoever is dropped") {
  for (const Drop drop : {Drop::by_position, Drop::by_choice, Drop::by_probability, Drop::at_random}) {
    laws::expert_router(TopK<2>{.width = toy::width, .experts = 5, .capacity_factor = 0.6, .least_capacity = 1, .drop = drop,
                                .balance = {.weight = 0.1}, .z_loss = 1e-2});
    laws::expert_router(TopK<1>{.width = toy::width, .experts = 3, .drop = drop});
  }
  laws::expert_router(TopK<3>{.width = toy::width, .experts = 3, .capacity_factor = 100, .balance = {.weight = 0.1, .by_sequence = true}});
}
TEST_CASE("Dropless keeps the laws of expert routers and drops nothing") {
  laws::expert_router(Dropless<2>{.width = toy::width, .experts = 4, .balance = {.weight = 0.1}, .z_loss = 1e-2});
  laws::expert_router(Dropless<1>{.width = toy::width, .experts = 3});
  laws::RoutingLog log;
  laws::route(Dropless<2>{.width = toy::width, .experts = 4}, {.tensor = 2}, log);
  for (const laws::Routed& said : log.real) CHECK(std::count(said.chosen.begin(), said.chosen.end(), Routes::dropped) == 0);
}
TEST_CASE("a router chosen at run time, and one with a meter, keep the laws of expert routers") {
  laws::expert_router(AnyRouter{});
  laws::expert_router(AnyRouter{.width = toy::width, .experts = 4, .choice = TokenChoice{.choices = 2, .capacity = {0.6, 1}, .renormalised = true}});
  laws::expert_router(Metered{TopK<2>{.width = toy::width, .experts = 5, .capacity_factor = 0.6, .least_capacity = 1}});
}
TEST_CASE("the laws of expert routers catch what breaks them") {
  CHECK(broken_by(Fault::none) == "");
  CHECK(broken_by(Fault::expert) == "expert 3 of 3");
  CHECK(broken_by(Fault::twice).starts_with("a token chooses expert"));
  CHECK(broken_by(Fault::dropped_weighs, 3) == "a dropped choice weighs 0.5");
  CHECK(broken_by(Fault::not_finite) == "a weight that isn't finite");
  CHECK(broken_by(Fault::counts) == "counts that aren't those of the choices");
  CHECK(broken_by(Fault::capacity, 3).find(" rows and a capacity of 3") != std::string::npos);
  CHECK(broken_by(Fault::shape) == "tables of other shapes than rows x choices and 1 x experts");
  CHECK(broken_by(Fault::dry_numbers) == "other numbers than in the dry run");
  CHECK(broken_by(Fault::by_rank).find("is routed otherwise on another rank or the next time") != std::string::npos);
  CHECK(broken_by(Fault::fickle).find("is routed otherwise on another rank or the next time") != std::string::npos);
}
