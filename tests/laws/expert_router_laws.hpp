// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of an expert router, as policy/expert_router.hpp states them: steps of a model that it routes in the middle of, on
/// thread ranks, with replays, look at every table that it makes.
///
///     laws::expert_router(Dense{});
///     laws::expert_router(MyRouter{toy::width, 4});    // whose weight has toy::width rows
#pragma once

#include "law.hpp"
#include "support/runs.hpp"

#include <dsx/policy/expert_router.hpp>

namespace laws {

using namespace toy;

/// What a router said of one micro-batch, on one rank.
struct Routed {
  Routes routes{};
  Extent bound = 0;  // of x's rows
  Shape chosen_shape{}, weights_shape{}, counts_shape{};
  std::vector<RowId> rows{};
  std::vector<std::int32_t> chosen{}, counts{};
  std::vector<double> weights{};
};
struct RoutingLog {
  std::mutex mutex{};
  std::vector<Routed> dry{}, real{};
};

/// y = (the sum of a token's weights) x, so that the weights have a gradient as behind experts that give back what they get.
struct SumOfWeights : Operation {
  static constexpr const char* name = "sum of weights";
  Node x, weights, y;
  static double sum(View w, Extent row) {
    double total = 0;
    for (Extent k = 0; k < w.shape.columns; ++k) total += dispatch(w.element, [&](auto zero) { return double(w.at<decltype(zero)>(row, k)); });
    return total;
  }
  void forward(Pass& p) const {
    const View from = p.view(x), w = p.view(weights), to = p.view(y);
    p.launch([=] {
      for (Extent r = 0; r < from.shape.rows; ++r)
        for (Extent c = 0; c < from.shape.columns; ++c) to.at<float>(r, c) = float(sum(w, r)) * from.at<float>(r, c);
    });
  }
  void towards_inputs(Pass& p) const {
    const View from = p.view(x), w = p.view(weights), dy = p.incoming(y);
    const Grad dx = p.gradient(x), dw = p.gradient(weights);
    p.launch([=] {
      for (Extent r = 0; r < from.shape.rows; ++r) {
        float dot = 0;
        for (Extent c = 0; c < from.shape.columns; ++c) {
          float& to = dx.view.at<float>(r, c);
          to = (dx.accumulate ? to : 0) + float(sum(w, r)) * dy.at<float>(r, c);
          dot += from.at<float>(r, c) * dy.at<float>(r, c);
        }
        for (Extent k = 0; k < w.shape.columns; ++k) {
          float& to = dw.view.at<float>(r, k);
          to = (dw.accumulate ? to : 0) + dot;
        }
      }
    });
  }
};

/// A layer that asks the router and notes what it says.
template <ExpertRouter R>
struct Routing {
  R router;
  RoutingLog* log;
  void parts(auto& visit) const { visit("router", router); }
  Value<Common> operator()(Value<Common> x_RC) const {
    Pass& p = *x_RC.pass;
    const Routes routes = router(x_RC);
    Routed said{.routes = routes, .bound = p.rows(x_RC.node).bound};
    if (routes.permutes()) {
      const View chosen = p.view(routes.chosen), weights = p.view(routes.weights), counts = p.view(routes.counts);
      said.chosen_shape = chosen.shape, said.weights_shape = weights.shape, said.counts_shape = counts.shape;
      p.launch([&] {
        said.chosen.assign(chosen.pointer<std::int32_t>(), chosen.pointer<std::int32_t>() + chosen.size());
        said.counts.assign(counts.pointer<std::int32_t>(), counts.pointer<std::int32_t>() + counts.size());
        for (Extent i = 0; i < weights.size(); ++i)
          said.weights.push_back(dispatch(weights.element, [&](auto zero) { return double(weights.pointer<decltype(zero)>()[i]); }));
      });
    }
    if (const Rows& rows = p.rows(x_RC.node); rows.ids) said.rows.assign(rows.ids, rows.ids + rows.live);
    {
      const std::lock_guard lock{log->mutex};
      (p.dry() ? log->dry : log->real).push_back(said);
    }
    if (!routes.permutes()) return x_RC;
    const auto y = p.make<Common>(p.shape(x_RC.node).columns);
    p.run(SumOfWeights{{}, x_RC.node, routes.weights, y.node});
    return y;
  }
};

/// What the tables of one micro-batch promise by themselves.
inline void tables_agree(const Routed& said) {
  const auto& [routes, bound, chosen_shape, weights_shape, counts_shape, rows, chosen, counts, weights] = said;
  LAW(routes.experts > 0 && routes.choices > 0 && routes.capacity > 0 && routes.capacity <= bound, routes.choices, " of ", routes.experts,
      " experts with a capacity of ", routes.capacity, " for ", bound, " rows");
  LAW(routes.permutes() || (routes.experts == 1 && routes.choices == 1), "no tables, and yet ", routes.experts, " experts");
  if (!routes.permutes()) return;
  const Shape each{rows.size(), routes.choices};
  const bool fits = chosen_shape == each && weights_shape == each && counts_shape == Shape{1, routes.experts};
  LAW(fits, "tables of other shapes than rows x choices and 1 x experts");
  if (!fits) return;
  std::vector<std::int32_t> kept(routes.experts);
  for (Extent r = 0; r < rows.size(); ++r) {
    std::vector<bool> taken(routes.experts);
    for (Extent i = r * routes.choices; i < (r + 1) * routes.choices; ++i) {
      LAW(std::isfinite(weights[i]), "a weight that isn't finite");
      LAW(chosen[i] != Routes::dropped || weights[i] == 0, "a dropped choice weighs ", weights[i]);
      if (chosen[i] == Routes::dropped) continue;
      const bool known = chosen[i] >= 0 && Extent(chosen[i]) < routes.experts;
      LAW(known, "expert ", chosen[i], " of ", routes.experts);
      if (!known) continue;
      LAW(!taken[chosen[i]], "a token chooses expert ", chosen[i], " twice");
      taken[chosen[i]] = true, ++kept[chosen[i]];
    }
  }
  LAW(kept == counts, "counts that aren't those of the choices");
  for (const std::int32_t count : kept) LAW(Extent(count) <= routes.capacity, "an expert with ", count, " rows and a capacity of ", routes.capacity);
}

/// A step of two micro-batches, each of them played twice, on `degrees`: all that was routed in it.
template <ExpertRouter R>
void route(const R& router, const Degrees& degrees, RoutingLog& log) {
  launch_threads(degrees.ranks(), [&](Session& session) {
    const Mesh mesh{session, degrees};
    const Sequential model{Embedding{vocabulary, length, width}, Chain{Routing<R>{router, &log}, Dropped{0.1}},
                           Chain{LayerNorm{width}, Head{vocabulary, width}}};
    Weights weights{mesh, model, Recipe{RecomputeUnits{}}};
    const toy::Feed feed{degrees.data, 2};
    Trainer trainer{weights, AdamW{}, TokenLoss{.chunk = 10}, {.micro_batches = 2, .rows = feed.rows(), .clip = clip, .seed = 5}};
    trainer.step(feed(1, mesh.coordinate(Axes::data)));  // ragged: fewer rows than planned
  });
}

template <ExpertRouter R>
void expert_router(const R& router) {
  for (const Degrees& degrees : {Degrees{}, Degrees{.data = 2}, Degrees{.data = 2, .tensor = 2}, Degrees{.tensor = 2, .token_split = true}}) {
    RoutingLog log;
    std::exception_ptr refused;  // after what was routed before
    try {
      for (int turn = 0; turn < 2; ++turn) route(router, degrees, log);
      LAW(log.real.size() == 2 * 2 * 2 * degrees.ranks(), "asked ", log.real.size(), " times in two steps of two micro-batches, each played twice");
    } catch (const Error&) {
      refused = std::current_exception();
    }
    const auto numbers = [](const Routed& said) {
      return std::array{said.routes.experts, said.routes.choices, said.routes.capacity, Extent(said.routes.permutes())};
    };
    std::map<Extent, std::array<Extent, 4>> planned;  // by bound
    for (const Routed& said : log.dry)
      LAW(planned.try_emplace(said.bound, numbers(said)).first->second == numbers(said), "other numbers in another dry run");
    std::map<RowId, std::pair<std::vector<std::int32_t>, std::vector<double>>> tokens;
    for (const Routed& said : log.real) {
      LAW(planned[said.bound] == numbers(said), "other numbers than in the dry run");
      tables_agree(said);
      const Extent k = said.routes.choices;
      if (!said.routes.permutes() || said.chosen.size() != said.rows.size() * k || said.weights.size() != said.chosen.size()) continue;
      for (Extent r = 0; r < said.rows.size(); ++r) {
        const auto of_row = [&](const auto& table) { return std::vector(table.begin() + long(r * k), table.begin() + long((r + 1) * k)); };
        const std::pair routed{of_row(said.chosen), of_row(said.weights)};
        LAW(tokens.try_emplace(said.rows[r], routed).first->second == routed, "row ", said.rows[r],
            " is routed otherwise on another rank or the next time");
      }
    }
    if (refused) std::rethrow_exception(refused);
  }
}

}  // namespace laws
