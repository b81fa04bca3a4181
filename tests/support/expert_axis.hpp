// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Models with experts on several ranks: routers of a test's own, which choose as told or count what travels.
///
///     Travelled seen;
///     const auto model = mixture(Watched{router, &seen});
///     ... seen.leaving[rank]      // (token, choice) pairs that it sent to other ranks, replays included
#pragma once

#include "short_runs.hpp"

#include <atomic>

namespace dsx::test {

/// By rank of the world.
struct Travelled {
  std::array<Extent, 8> calls{}, leaving{}, leaving_first{}, dropped{};  // first: replays left out
};

/// Counts where another router's choices lie.
template <class R>
struct Watched {
  R router;
  Travelled* seen;
  Extent experts = router.experts;
  void parts(auto& visit) const { visit("", router); }
  Routes operator()(Value<Common> x_RC) const {
    Pass& p = *x_RC.pass;
    const Routes routes = router(x_RC);
    const Extent here = routes.experts / p.mesh().size(Axes::expert), mine = p.mesh().coordinate(Axes::expert), rank = p.mesh().session().rank();
    const bool first = !p.replaying();
    p.launch(
        [this, here, mine, rank, first](View chosen) {
          ++seen->calls[rank];
          for (Extent i = 0; i < chosen.size(); ++i) {
            const std::int32_t e = chosen.pointer<std::int32_t>()[i];
            const bool leaves = e >= 0 && Extent(e) / here != mine;
            seen->leaving[rank] += leaves, seen->leaving_first[rank] += leaves && first, seen->dropped[rank] += e < 0;
          }
        },
        p.view(routes.chosen));
    return routes;
  }
};
template <class R>
Watched(R, Travelled*) -> Watched<R>;

/// Two choices a token, told by its id; half a weight each.
struct Told {
  Extent experts;
  int (*chosen)(RowId, Extent choice);

  struct Write : Operation {
    static constexpr const char* name = "told";
    Node choices, weights, counts;
    int (*chosen)(RowId, Extent choice);
    void forward(Pass& p) const {
      p.launch(
          [this](View to, View half, View count, const RowId* ids) {
            std::fill_n(count.pointer<std::int32_t>(), count.size(), 0);
            for (Extent i = 0; i < to.size(); ++i) {
              const int e = to.pointer<std::int32_t>()[i] = chosen(ids[i / 2], i % 2);
              half.pointer<double>()[i] = e < 0 ? 0 : 0.5;
              if (e >= 0) ++count.pointer<std::int32_t>()[e];
            }
          },
          p.view(choices), p.view(weights), p.view(counts), p.rows(choices).ids);
    }
    void towards_inputs(Pass&) const {}
  };
  void parts(auto&) const {}
  Routes operator()(Value<Common> x_RC) const {
    Pass& p = *x_RC.pass;
    const Rows rows = p.rows(x_RC.node);
    Routes routes{.experts = experts, .choices = 2, .capacity = rows.bound};
    routes.chosen = p.make(rows, 2, Element::i32), routes.weights = p.make(rows, 2, Element::f64);
    routes.counts = p.make({.bound = 1, .live = 1}, experts, Element::i32);
    p.run(Write{{}, routes.chosen, routes.weights, routes.counts, chosen});
    return routes;
  }
};

/// Two layers of experts with dropout among them, the second beside shared and residual ones.
template <class Router>
auto mixture(const Router& router) {
  const Experts experts{router.experts, router, Chain{Mlp{width, 6}, Dropped{0.2}}};
  return Sequential{Named{"e", Embedding{vocabulary, length, width}}, Named{"moe", Residual{LayerNorm{width}, experts}},
                    Named{"both", Residual{ResidualExpert{width, Mlp{width, 5}, SharedExpert{Mlp{width, 3}, experts}}}},
                    Named{"h", Chain{LayerNorm{width}, Head{vocabulary, width}}}};
}

inline std::string text_of(const Layout& layout) {
  const Degrees& d = layout.degrees;
  return concat("data ", d.data, " (inner ", d.inner, "), tensor ", d.tensor, d.token_split ? " by tokens" : "", ", pipe ", d.pipe, ", expert ",
                d.expert, layout.recompute.units() ? ", units recomputed" : "");
}

}  // namespace dsx::test
