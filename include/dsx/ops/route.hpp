// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What routers are made of: logits in the wide element, their softmax, each token's best experts, seats, weights, auxiliary losses.
///
///     const Node logits = router_logits(x_RC, gate), probabilities = softmax(p, logits);
///     const Node wanted = best_experts(p, logits, 2);
///     Routes routes = seats(p, wanted, probabilities, {.capacity = 4}, bound);
///     routes.weights = choice_weights(p, probabilities, routes.chosen, true);
///     add_balance_loss(p, probabilities, wanted, {.weight = 0.01});
///
/// Gradients go through probabilities and logits; choices have none.
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/kernels/matmul.hpp>
#include <dsx/kernels/permute.hpp>
#include <dsx/kernels/route.hpp>
#include <dsx/pass/pass.hpp>
#include <dsx/policy/expert_router.hpp>

namespace dsx {

/// x W with the result in the wide element. Backward rounds the logits' gradient to x's element, once.
struct RouterLogits : Operation {
  static constexpr const char* name = "router_logits";
  Node x, logits;
  Slot gate;
  Axes partial;
  Cost cost(Pass& p) const { return {2.0 * double(p.shape(x).size()) * double(p.shape(logits).columns), double(p.weight(gate).bytes())}; }
  void forward(Pass& p) const {
    const auto scope = p.scratch_scope();
    const View packing = p.scratch_bytes(kernels::matmul_scratch({p.planned(x)}, {p.weight(gate)}, p.planned(logits)));
    p.launch(kernels::matmul, kernels::Matrix{p.view(x)}, kernels::Matrix{p.weight(gate)}, Grad{p.view(logits), false}, kernels::Epilogue{}, packing);
  }
  void towards_inputs(Pass& p) const {
    const Grad dx = p.gradient(x);
    const auto scope = p.scratch_scope();
    const View dlogits = narrowed(p);
    const View packing = p.scratch_bytes(kernels::matmul_scratch({planned(p)}, {p.weight(gate), true}, p.planned(x)));
    p.launch(kernels::matmul, kernels::Matrix{dlogits}, kernels::Matrix{p.weight(gate), true}, dx, kernels::Epilogue{}, packing);
  }
  void towards_weights(Pass& p) const {
    if (!p.trained(gate)) return;
    const Grad dw = p.weight_gradient(gate, partial);
    const auto scope = p.scratch_scope();
    const View dlogits = narrowed(p);
    const View packing = p.scratch_bytes(kernels::matmul_scratch({p.planned(x), true}, {planned(p)}, dw.view));
    p.launch(kernels::matmul, kernels::Matrix{p.view(x), true}, kernels::Matrix{dlogits}, dw, kernels::Epilogue{}, packing);
  }

 private:
  View planned(Pass& p) const {
    View v = p.planned(logits);
    v.element = p.element(x);
    return v;
  }
  View narrowed(Pass& p) const {
    const View dlogits = p.incoming(logits);
    if (dlogits.element == p.element(x)) return dlogits;
    const View narrow = p.scratch(p.planned(logits).shape, p.element(x)).rows({0, dlogits.shape.rows});
    p.launch(kernels::copy, dlogits, narrow);
    return narrow;
  }
};
inline Node router_logits(Value<Common> x_RC, const Parameter& gate) {
  Pass& p = *x_RC.pass;
  const Shape w = p.weight(gate.slot).shape;
  if (p.shape(x_RC.node).columns != w.rows) fail<302>("a value of ", p.shape(x_RC.node).columns, " columns meets a router for ", w.rows, " columns");
  const Node logits = p.make(p.rows(x_RC.node), w.columns, wide(p.element(x_RC.node)));
  p.run(RouterLogits{{}, x_RC.node, logits, gate.slot, p.partial<Common>(gate.slot)});
  return logits;
}

struct Softmax : Operation {
  static constexpr const char* name = "softmax";
  Node logits, probabilities;
  void forward(Pass& p) const { p.launch(kernels::softmax, p.view(logits), p.view(probabilities)); }
  void towards_inputs(Pass& p) const { p.launch(kernels::softmax_pullback, p.view(probabilities), p.incoming(probabilities), p.gradient(logits)); }
};
inline Node softmax(Pass& p, Node logits) {
  const Node probabilities = p.make(p.rows(logits), p.shape(logits).columns, p.element(logits));
  p.run(Softmax{{}, logits, probabilities});
  return probabilities;
}

struct BestExperts : Operation {
  static constexpr const char* name = "best_experts";
  Node logits, wanted;
  void forward(Pass& p) const { p.launch(kernels::best_experts, p.view(logits), p.view(wanted)); }
  void towards_inputs(Pass&) const {}
};
/// dsx-E347 where there are fewer experts than choices.
inline Node best_experts(Pass& p, Node logits, Extent choices) {
  const Extent experts = p.shape(logits).columns;
  if (choices == 0 || choices > experts || choices > kernels::most_choices)
    fail<347>("a router chooses ", choices, " of ", experts, " experts; it takes at least 1, at most all, and no more than ", kernels::most_choices);
  const Node wanted = p.make(p.rows(logits), choices, Element::i32);
  p.run(BestExperts{{}, logits, wanted});
  return wanted;
}

/// Seats for so many rows: a function of their number that a plan asks with the bound and a kernel with the live rows.
struct Capacity {
  double factor = 0;  // times the rows that each expert would get of an even share; 0: no limit
  Extent least = 0;
  Extent operator()(Extent rows, Extent choices, Extent experts) const {
    if (factor == 0) return rows;
    const double even = double(rows) / double(experts);
    return std::min(rows, std::max(Extent(std::ceil(even * (double(choices) * factor))), least));
  }
};

struct SeatTokens : Operation {
  static constexpr const char* name = "seat_tokens";
  Node wanted, probabilities, chosen, counts;
  kernels::Seats seats;
  void forward(Pass& p) const {
    const auto scope = p.scratch_scope();
    const bool sorts = seats.drop == Drop::by_probability || seats.drop == Drop::at_random;
    const View space = p.scratch_bytes(sorts ? kernels::seat_scratch(p.planned(wanted).shape, p.shape(probabilities).columns) : 0);
    p.launch(kernels::seat, p.view(wanted), p.view(probabilities), seats, p.rows(wanted).ids, p.view(chosen), p.view(counts), space);
  }
  void towards_inputs(Pass&) const {}
};
/// The choices that have a seat, and their counts; weights are the caller's. An evaluation draws no lots: the later token loses.
inline Routes seats(Pass& p, Node wanted, Node probabilities, const Capacity& capacity, Drop drop = Drop::by_position) {
  const Rows rows = p.rows(wanted);
  const Extent experts = p.shape(probabilities).columns, choices = p.shape(wanted).columns;
  if (!(capacity.factor >= 0) || !std::isfinite(capacity.factor)) fail<346>("a capacity factor of ", capacity.factor, "; it is a number above 0");
  kernels::Seats seats{.capacity = capacity(rows.live, choices, experts), .drop = drop};
  if (drop == Drop::at_random) {
    seats.key = p.random();
    if (!p.training) seats.drop = Drop::by_position;
  }
  Routes routes{.experts = experts, .choices = choices, .capacity = capacity(rows.bound, choices, experts)};
  routes.chosen = p.make(rows, choices, Element::i32);
  routes.counts = p.make({.bound = 1, .live = 1}, experts, Element::i32);
  p.run(SeatTokens{{}, wanted, probabilities, routes.chosen, routes.counts, seats});
  return routes;
}

struct ChoiceWeights : Operation {
  static constexpr const char* name = "choice_weights";
  Node probabilities, chosen, weights;
  bool renormalised;
  void forward(Pass& p) const { p.launch(kernels::choice_weights, p.view(probabilities), p.view(chosen), renormalised, p.view(weights)); }
  void towards_inputs(Pass& p) const {
    p.launch(kernels::choice_weights_pullback, p.view(probabilities), p.view(chosen), renormalised, p.incoming(weights), p.gradient(probabilities));
  }
};
/// Probabilities of the choices that have a seat; `renormalised`: divided by their sum, so that a token's weights add up to 1 after drops.
inline Node choice_weights(Pass& p, Node probabilities, Node chosen, bool renormalised) {
  const Node weights = p.make(p.rows(chosen), p.shape(chosen).columns, p.element(probabilities));
  p.run(ChoiceWeights{{}, probabilities, chosen, weights, renormalised});
  return weights;
}

/// The load-balancing loss of a router (Fedus et al. 2021; Lepikhin et al. 2020).
struct Balance {
  double weight = 0;          // 0: none
  bool by_sequence = false;   // fractions of each sequence by itself (DeepSeek-AI 2024): no layout of the batch changes the loss
  bool first_choice = false;  // count first choices alone, as GShard does
  bool over_ranks = false;    // fractions of the micro-batches of all data ranks together (Qiu et al. 2025), of which one rank may have but few rows
};
/// Choices by expert and rows, of all ranks along some axes.
struct CountChoices : Operation {
  static constexpr const char* name = "count_choices";
  Node wanted, counts;
  Extent choices;
  Axes over;
  void forward(Pass& p) const {
    p.launch(kernels::count_choices, p.view(wanted), choices, p.view(counts));
    p.mesh().along(over).all_reduce(p.view(counts)).wait();
  }
  void towards_inputs(Pass&) const {}
};
struct BalanceLoss : Operation {
  static constexpr const char* name = "balance_loss";
  Node probabilities, wanted, counts, loss;  // counts: wanted itself where there are none but those of its rows
  Extent choices, first;
  bool by_sequence;
  void forward(Pass& p) const {
    const auto scope = p.scratch_scope();
    p.launch(kernels::balance_loss, p.view(probabilities), p.view(wanted), over(p), p.view(loss), fractions(p));
  }
  void towards_inputs(Pass& p) const {
    const auto pull = [](View probabilities, View wanted, const kernels::BalanceOver& over, View weight, Grad to, View fractions) {
      kernels::balance_loss_pullback(probabilities, wanted, over, *weight.pointer<double>(), to, fractions);
    };
    const Grad to = p.gradient(probabilities);
    const auto scope = p.scratch_scope();
    p.launch(pull, p.view(probabilities), p.view(wanted), over(p), p.incoming(loss), to, fractions(p));
  }

 private:
  kernels::BalanceOver over(Pass& p) const {
    return {by_sequence ? p.batch().sequences : Sequences{}, first, choices, counts != wanted ? p.view(counts) : View{}};
  }
  View fractions(Pass& p) const { return p.scratch({1, p.shape(probabilities).columns}, Element::f64); }
};
/// A loss that isn't the objective's: an evaluation leaves it out. It is a mean over the rows of the step.
inline void add_auxiliary_loss(Pass& p, Node sum, double weight) {
  p.add_loss(sum, weight / p.step_rows(), p.token_split() ? Axes::tensor : Axes::none);
}
inline void add_balance_loss(Pass& p, Node probabilities, Node wanted, const Balance& balance) {
  if (balance.weight == 0 || !p.training) return;
  const Node loss = p.make_scalar(Element::f64);
  const Extent choices = balance.first_choice ? 1 : p.shape(wanted).columns;
  Node counts = wanted;
  if (balance.over_ranks && !balance.by_sequence) {  // sequences lie whole on a rank
    counts = p.make({.bound = 1, .live = 1}, p.shape(probabilities).columns + 1, Element::f64);
    p.run(CountChoices{{}, wanted, counts, choices, p.token_split() ? Axes::data | Axes::tensor : Axes::data});
  }
  p.run(BalanceLoss{{}, probabilities, wanted, counts, loss, choices, p.tokens().begin, balance.by_sequence});
  add_auxiliary_loss(p, loss, balance.weight);
}

/// Keeps logits small (Zoph et al. 2022): the mean over rows of log(sum of exponentials) squared.
struct ZLoss : Operation {
  static constexpr const char* name = "z_loss";
  Node logits, loss;
  void forward(Pass& p) const { p.launch(kernels::z_loss, p.view(logits), p.view(loss)); }
  void towards_inputs(Pass& p) const {
    const auto pull = [](View values, View weight, Grad to) { kernels::z_loss_pullback(values, *weight.pointer<double>(), to); };
    p.launch(pull, p.view(logits), p.incoming(loss), p.gradient(logits));
  }
};
inline void add_z_loss(Pass& p, Node logits, double weight) {
  if (weight == 0 || !p.training) return;
  const Node loss = p.make_scalar(Element::f64);
  p.run(ZLoss{{}, logits, loss});
  add_auxiliary_loss(p, loss, weight);
}

/// What a router does that lets tokens choose: all of the above in order.
struct TokenChoice {
  Extent choices = 1;
  Capacity capacity{};
  Drop drop = Drop::by_position;
  bool renormalised = false;
  Balance balance{};
  double z_loss = 0;

  Routes operator()(Value<Common> x_RC, const Parameter& gate) const {
    Pass& p = *x_RC.pass;
    const Node logits = router_logits(x_RC, gate), probabilities = softmax(p, logits), wanted = best_experts(p, logits, choices);
    Routes routes = seats(p, wanted, probabilities, capacity, drop);
    routes.weights = choice_weights(p, probabilities, routes.chosen, renormalised);
    routes.probabilities = probabilities, routes.wanted = wanted;
    add_balance_loss(p, probabilities, wanted, balance);
    add_z_loss(p, logits, z_loss);
    return routes;
  }
};

}  // namespace dsx
