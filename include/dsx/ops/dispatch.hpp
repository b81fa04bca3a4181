// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Rows of tokens to the ranks of the expert axis that hold their experts, and the answers back.
///
///     const Node answers = among_experts(p, rows, order, routes, [&](Value<Common> here) { return layer(here); });
///
/// First every rank tells every other how many rows it sends to each expert, in 4 bytes an expert. Then the ids of the rows travel, 8 bytes
/// each, and the rows; the answers come back; backward their gradients go, and those of the rows come back. What a rank sends itself stays.
/// Memory is planned for Routes::bound_arriving rows, and products run on those that came. A rank that sends or gets no row takes part
/// with counts of 0.
#pragma once

#include <dsx/kernels/dispatch.hpp>
#include <dsx/kernels/elementwise.hpp>
#include <dsx/kernels/permute.hpp>
#include <dsx/ops/permute.hpp>

namespace dsx {

/// How rows travel: so many to each rank and from each (u64), and the place of each that arrives.
struct Journeys {
  Node sent = 0, received = 0, places = 0;
};

struct OrderArrivals : Operation {
  static constexpr const char* name = "arrival_order";
  Node counts, begin, live;
  Journeys journeys;
  void forward(Pass& p) const {
    const Communicator& ranks = p.mesh().along(Axes::expert);
    const auto scope = p.scratch_scope();
    const View mine = p.view(counts), arriving = p.scratch({ranks.size(), mine.size() / ranks.size()}, Element::i32);
    ranks.all_to_all(mine.reshaped({mine.size(), 1}), arriving.reshaped({mine.size(), 1})).wait();
    p.launch(kernels::arrival_order, mine, arriving, p.view(journeys.sent), p.view(journeys.received), p.view(journeys.places), p.view(begin),
             p.view(live));
  }
  void towards_inputs(Pass&) const {}
};

/// Of a node of counts; empty in a dry run, which shares out the bound.
inline std::span<const Extent> rows_by_rank(Pass& p, Node counts) {
  const View v = p.view(counts);
  return {v.data ? v.pointer<Extent>() : nullptr, v.data ? v.size() : 0};
}
/// Rows of `from`, in the order of all experts, to the ranks of those; `to` has this rank's, in the order of its own.
inline void send_rows(Pass& p, const Journeys& by, View from, View bound, Grad to) {
  const auto scope = p.scratch_scope();
  const View arrived = p.scratch(bound.shape, bound.element).rows({0, to.view.shape.rows});
  p.mesh().along(Axes::expert).all_to_all(from, rows_by_rank(p, by.sent), arrived, rows_by_rank(p, by.received)).wait();
  p.launch(kernels::permute, arrived, p.view(by.places).rows({0, arrived.shape.rows}), to);
}
/// The same way back.
inline void return_rows(Pass& p, const Journeys& by, View from, View bound, Grad to) {
  const auto scope = p.scratch_scope();
  View leaving = p.scratch(bound.shape, bound.element).rows({0, from.shape.rows});
  const View back = to.accumulate ? p.scratch(to.view.shape, to.view.element) : to.view;
  p.launch(kernels::permute_pullback, from, p.view(by.places).rows({0, leaving.shape.rows}), Grad{leaving, false});
  if (p.dry()) leaving = leaving.rows({0, back.shape.rows});  // as many as were sent
  p.mesh().along(Axes::expert).all_to_all(leaving, rows_by_rank(p, by.received), back, rows_by_rank(p, by.sent)).wait();
  if (to.accumulate) p.launch(kernels::pass_on, back, to);
}

/// Rows' ids, which stand beside them for as long as an operation among experts may ask.
struct SendIds : Operation {
  static constexpr const char* name = "send_ids";
  Node from, begin, ids;
  Journeys by;
  void forward(Pass& p) const {
    const auto scope = p.scratch_scope();
    const View to = p.view(ids), arrived = p.scratch(p.planned(ids).shape, Element::u64).rows({0, to.shape.rows});
    p.mesh().along(Axes::expert).all_to_all(p.view(from), rows_by_rank(p, by.sent), arrived, rows_by_rank(p, by.received)).wait();
    p.launch(kernels::arrival_ids, arrived, p.view(by.places).rows({0, to.shape.rows}), to);
  }
  void towards_inputs(Pass& p) const { (void)p.view(begin), (void)p.view(ids); }
};
struct DispatchRows : Operation {
  static constexpr const char* name = "dispatch";
  Node home, away;
  Journeys by;
  Cost cost(Pass& p) const { return {0, double((p.shape(home).size() + 2 * p.shape(away).size()) * bytes_of(p.element(home)))}; }
  void forward(Pass& p) const { send_rows(p, by, p.view(home), p.planned(away), {p.view(away), false}); }
  void towards_inputs(Pass& p) const { return_rows(p, by, p.incoming(away), p.planned(away), p.gradient(home)); }
};
struct ReturnRows : Operation {
  static constexpr const char* name = "return";
  Node away, home;
  Journeys by;
  Cost cost(Pass& p) const { return {0, double((p.shape(home).size() + 2 * p.shape(away).size()) * bytes_of(p.element(home)))}; }
  void forward(Pass& p) const { return_rows(p, by, p.view(away), p.planned(away), {p.view(home), false}); }
  void towards_inputs(Pass& p) const { send_rows(p, by, p.incoming(home), p.planned(away), p.gradient(away)); }
};

/// f of the rows of this rank's experts, wherever they come from; its answers in the order of `rows`. Where each rank has all experts (there
/// is but one, or the axis has one rank) it is f of `rows`.
template <class F>
Node among_experts(Pass& p, Node rows, const ExpertRows& order, const Routes& routes, const F& f) {
  const Extent ranks = p.mesh().size(Axes::expert), here = routes.experts / ranks;
  if (ranks == 1 || routes.experts == 1) {
    const auto scope = p.with_rows(order.rows);
    return f(Value<Common>{&p, rows}).node;
  }
  if (routes.experts % ranks != 0) fail<314>(routes.experts, " experts can't be shared out evenly over ", ranks, " ranks along expert");
  const Extent bound = routes.bound_arriving(p.rows(order.places).bound, ranks);
  const Rows one{.bound = 1, .live = 1}, all{.bound = bound, .live = bound};
  const Node begin = p.make(one, here + 1, Element::u64), live = p.make_scalar(Element::i64);
  const Journeys by{p.make(one, ranks, Element::u64), p.make(one, ranks, Element::u64), p.make(all, 1, Element::i32)};
  p.run(OrderArrivals{{}, routes.counts, begin, live, by});
  const Extent count = Extent(p.peek<std::int64_t>(live, std::int64_t(bound)));
  const Node ids = p.make({.bound = bound, .live = count}, 1, Element::u64);
  p.run(SendIds{{}, order.ids, begin, ids, by});
  const View first = p.planned(begin), numbers = p.planned(ids);
  const Rows arrived{.bound = bound, .live = count, .ids = numbers.pointer<RowId>(), .groups = here, .begin = first.pointer<Extent>()};
  const Node away = p.make(arrived, p.shape(rows).columns, p.element(rows));
  p.run(DispatchRows{{}, rows, away, by});
  const Node answers = [&] {
    const auto scope = p.with_rows(arrived);
    return f(Value<Common>{&p, away}).node;
  }();
  const Node home = p.make(order.rows, p.shape(answers).columns, p.element(answers));
  p.run(ReturnRows{{}, answers, home, by});
  return home;
}

}  // namespace dsx
