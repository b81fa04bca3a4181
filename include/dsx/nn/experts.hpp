// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A mixture of experts: a router sends each token to some of several layers of one structure, and sums what they answer.
///
///     Experts moe{8, TopK<2>{.width = c, .experts = 8}, Mlp{c, 4 * c}};
///     Experts plain{1, Dense{}, Mlp{c, 4 * c}};                      // the layer as it is
///     SharedExpert both{Mlp{c, c}, moe};                             // a layer that every token passes, beside them
///     ResidualExpert residual{c, Mlp{c, 4 * c}, moe};                // the same, weighed token by token (Rajbhandari et al. 2022)
///
/// Each parameter of the layer becomes a stack of as many as there are experts, shared out over the mesh's expert axis; tokens travel to the
/// ranks that hold their experts (ops/dispatch.hpp). The layer sees the rows of all experts of its rank as one Common value
/// that lies expert by expert; its rows have ids of their own (the token's id x choices + the choice), so that dropout among experts
/// doesn't depend on the layout either. A residual stream that is split by tokens is whole among experts.
#pragma once

#include <dsx/ops/add.hpp>
#include <dsx/ops/dispatch.hpp>
#include <dsx/ops/joint_balance.hpp>
#include <dsx/ops/permute.hpp>
#include <dsx/ops/route.hpp>
#include <dsx/ops/tokens.hpp>

namespace dsx {

template <ExpertRouter Router, class Layer>
struct Experts {
  Extent experts;
  Router router;
  Layer layer;

  Experts(Extent count, Router r, Layer l) : experts{count}, router{std::move(r)}, layer{std::move(l)} {
    if (experts == 0) fail<348>("Experts of none; the least is 1");
    // The layer is this object's own and not const yet.
    each_part("", layer, [&](const std::string& path, const Parameter& p) {
      if (p.stack != 1) fail<348>("parameter ", path, " of an expert is a stack of ", p.stack, " already; experts don't nest");
      const_cast<Parameter&>(p).stack = experts;
    });
  }
  void parts(auto& visit) const { visit("router", router), visit("experts", layer); }
  Value<Common> operator()(Value<Common> x_RC) const {
    if constexpr (std::same_as<Router, Dense>) {
      if (experts != 1) fail<348>("Dense sends all tokens to one expert, and there are ", experts);
      return layer(x_RC);
    } else {
      return answer(x_RC, [](const Routes&) {});
    }
  }
  /// Of a stream whose routers are judged together: its tally goes on with this one's.
  Judged operator()(Judged in) const {
    if (!in.x_RC.pass->training) return in.with((*this)(in.x_RC));
    Routes found;
    const Value<Common> y_RC = answer(in.x_RC, [&](const Routes& routes) { found = routes; });
    return tally(in, y_RC, found);
  }

 private:
  /// look(routes): what the router says of all tokens.
  Value<Common> answer(Value<Common> x_RC, const auto& look) const {
    return with_all_tokens(x_RC, [&](Value<Common> all_RC) { return routed(all_RC, look); });
  }
  Value<Common> routed(Value<Common> x_RC, const auto& look) const {
    Pass& p = *x_RC.pass;
    const Routes routes = router(x_RC);
    look(routes);
    if (routes.experts != experts) fail<348>("a router for ", routes.experts, " experts stands before ", experts);
    if (!routes.permutes()) return layer(x_RC);
    const ExpertRows order = expert_rows(p, x_RC.node, routes);
    const Node rows_NC = permute(p, x_RC.node, order);
    const Node answers_NC = among_experts(p, rows_NC, order, routes, [this](Value<Common> here_NC) { return layer(here_NC); });
    return {&p, combine(p, answers_NC, order, routes.weights)};
  }
};
template <class R, class L>
Experts(Extent, R, L) -> Experts<R, L>;

/// shared(x) + experts(x).
template <class Layer, class Routed>
struct SharedExpert {
  Layer shared;
  Routed experts;
  void parts(auto& visit) const { visit("shared", shared), visit("routed", experts); }
  Value<Common> operator()(Value<Common> x_RC) const { return shared(x_RC) + experts(x_RC); }
};
template <class L, class R>
SharedExpert(L, R) -> SharedExpert<L, R>;

/// c0 experts(x) + c1 shared(x), where c is a softmax over two coefficients of x.
template <class Layer, class Routed>
struct ResidualExpert {
  Layer shared;
  Routed experts;
  Parameter coefficients;
  ResidualExpert(Extent width, Layer l, Routed r) : shared{std::move(l)}, experts{std::move(r)}, coefficients{{width, 2}, {0, 0.02F}} {}
  void parts(auto& visit) const { visit("shared", shared), visit("routed", experts), visit("coefficients", coefficients); }
  Value<Common> operator()(Value<Common> x_RC) const {
    const Node factors_R2 = softmax(*x_RC.pass, router_logits(x_RC, coefficients));
    return weigh_pair(experts(x_RC), shared(x_RC), factors_R2);
  }
};
template <class L, class R>
ResidualExpert(Extent, L, R) -> ResidualExpert<L, R>;

}  // namespace dsx
