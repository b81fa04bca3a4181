// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Tokens to the rows of their experts and back: sorted by expert, then by token; what comes back is weighed and summed.
///
///     const ExpertRows order = expert_rows(p, x_RC.node, routes);
///     const Node rows = permute(p, x_RC.node, order);           // of order.rows: as many as were chosen, in groups
///     Value<Common> y = combine(p, answers, order, routes.weights);
#pragma once

#include <dsx/kernels/permute.hpp>
#include <dsx/pass/pass.hpp>
#include <dsx/policy/expert_router.hpp>

namespace dsx {

/// Where each choice of a token goes, and who the rows there are.
struct ExpertRows {
  Node places = 0;  // rows x choices, i32
  Node ids = 0;     // of the rows, u64
  Rows rows{};
};

struct OrderExperts : Operation {
  static constexpr const char* name = "expert_order";
  Node chosen, counts, places, begin, ids, live;
  void forward(Pass& p) const {
    p.launch(kernels::expert_order, p.view(chosen), p.view(counts), p.rows(chosen).ids, p.view(places), p.view(begin), p.view(ids), p.view(live));
  }
  /// Rows point into these two for as long as an operation among experts may ask: backward as well.
  void towards_inputs(Pass& p) const { (void)p.view(begin), (void)p.view(ids); }
};
/// The host learns here how many rows there are. dsx-E345 for a token whose logits are no numbers.
inline ExpertRows expert_rows(Pass& p, Node x, const Routes& routes) {
  const Rows tokens = p.rows(x);
  const Extent bound = routes.bound(tokens.bound);
  const Node places = p.make(tokens, routes.choices, Element::i32), begin = p.make({.bound = 1, .live = 1}, routes.experts + 1, Element::u64),
             ids = p.make({.bound = bound, .live = bound}, 1, Element::u64), live = p.make_scalar(Element::i64);
  p.run(OrderExperts{{}, routes.chosen, routes.counts, places, begin, ids, live});
  const auto count = p.peek<std::int64_t>(live, std::int64_t(bound));
  if (count < 0) {
    const Extent row = Extent(-1 - count);
    fail<345>("row ", row, " of a micro-batch (number ", tokens.ids[row], " of the step) has router logits that aren't numbers");
  }
  const View first = p.planned(begin), numbers = p.planned(ids);
  return {places,
          ids,
          {.bound = bound, .live = Extent(count), .ids = numbers.pointer<RowId>(), .groups = routes.experts, .begin = first.pointer<Extent>()}};
}

struct Permute : Operation {
  static constexpr const char* name = "permute";
  Node x, places, y;
  Cost cost(Pass& p) const { return {0, double((p.shape(x).size() + p.shape(y).size()) * bytes_of(p.element(x)))}; }
  void forward(Pass& p) const { p.launch(kernels::permute, p.view(x), p.view(places), Grad{p.view(y), false}); }
  void towards_inputs(Pass& p) const { p.launch(kernels::permute_pullback, p.incoming(y), p.view(places), p.gradient(x)); }
};
inline Node permute(Pass& p, Node x, const ExpertRows& order) {
  const Node y = p.make(order.rows, p.shape(x).columns, p.element(x));
  p.run(Permute{{}, x, order.places, y});
  return y;
}

struct CombineExperts : Operation {
  static constexpr const char* name = "combine";
  Node rows, weights, places, y;
  Cost cost(Pass& p) const {
    return {2.0 * double(p.shape(rows).size()), double((p.shape(rows).size() + p.shape(y).size()) * bytes_of(p.element(y)))};
  }
  void forward(Pass& p) const { p.launch(kernels::combine, p.view(rows), p.view(weights), p.view(places), p.view(y)); }
  void towards_inputs(Pass& p) const {
    const View dy = p.incoming(y);
    const Grad drows = p.gradient(rows), dweights = p.gradient(weights);
    p.launch(kernels::combine_pullback, p.view(rows), p.view(weights), p.view(places), dy, drows, dweights);
  }
};
inline Node combine(Pass& p, Node rows, const ExpertRows& order, Node weights) {
  const Node y = p.make(p.rows(order.places), p.shape(rows).columns, p.element(rows));
  p.run(CombineExperts{{}, rows, weights, order.places, y});
  return y;
}

/// factors_R2[0] a + factors_R2[1] b, row by row.
struct WeighPair : Operation {
  static constexpr const char* name = "weigh_pair";
  Node a, b, factors, y;
  void forward(Pass& p) const { p.launch(kernels::weigh, p.view(a), p.view(b), p.view(factors), p.view(y)); }
  void towards_inputs(Pass& p) const {
    const View dy = p.incoming(y);
    const Grad da = p.gradient(a), db = p.gradient(b), dfactors = p.gradient(factors);
    p.launch(kernels::weigh_pullback, p.view(a), p.view(b), p.view(factors), dy, da, db, dfactors);
  }
};
inline Value<Common> weigh_pair(Value<Common> a, Value<Common> b, Node factors_R2) {
  Pass& p = *a.pass;
  const auto y = p.make<Common>(p.shape(a.node).columns, p.element(a.node));
  p.run(WeighPair{{}, a.node, b.node, factors_R2, y.node});
  return y;
}

}  // namespace dsx
