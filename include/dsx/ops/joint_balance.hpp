// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// One load-balancing loss over all routers of a model, as Hugging Face's Mixtral has it: E times the sum over experts of the fraction of all
/// layers' choices that fell on it, times its mean probability in all layers. A loss by layer (Balance) multiplies within each and adds up.
///
///     Judged stream = begin_tally(x_RC, experts);               // behind the embedding
///     stream = tally(stream, y_RC, routes);                     // in each layer: what its router gave
///     add_joint_balance_loss(stream, 0.01);                     // in front of the head
///
/// A product of means over layers is known behind the last of them, so what it is made of travels with the stream, token by token.
#pragma once

#include <dsx/ops/route.hpp>

namespace dsx {

/// A residual stream and, for each of its tokens and experts, sums over the layers so far: of router probabilities, and of choices (whatever
/// seats there were), each counted as one over the number of them.
struct Judged {
  Value<Common> x_RC{}, probabilities_RE{}, wishes_RE{};
  void values(auto&& visit) { visit(x_RC), visit(probabilities_RE), visit(wishes_RE); }
  Judged with(Value<Common> x) const { return {x, probabilities_RE, wishes_RE}; }
};

struct Zeros : Operation {
  static constexpr const char* name = "zeros";
  Node y;
  void forward(Pass& p) const { p.launch(kernels::zero, p.view(y)); }
  void towards_inputs(Pass&) const {}
};
inline Judged begin_tally(Value<Common> x_RC, Extent experts) {
  Pass& p = *x_RC.pass;
  Judged stream{x_RC};
  for (Value<Common>* sum : {&stream.probabilities_RE, &stream.wishes_RE}) {
    *sum = p.make<Common>(experts, wide(p.element(x_RC.node)));
    p.run(Zeros{{}, sum->node});
  }
  return stream;
}

/// `mine`: the rows of the router's tables that the stream holds on this rank.
struct TallyRoutes : Operation {
  static constexpr const char* name = "tally";
  Node probabilities, wanted, sums, wishes, next_sums, next_wishes;
  Range mine;
  bool split;
  void forward(Pass& p) const {
    const auto count = [](View before, View wanted_Tk, View after) {
      kernels::copy(before, after);
      dispatch(after.element, [&](auto zero) {
        using W = decltype(zero);
        for (Extent t = 0; t < wanted_Tk.shape.rows; ++t)
          for (Extent i = 0; i < wanted_Tk.shape.columns; ++i)
            if (const auto e = wanted_Tk.at<std::int32_t>(t, i); e >= 0) {
              W& wishes = after.at<W>(t, Extent(e));
              wishes = W(double(wishes) + 1 / double(wanted_Tk.shape.columns));
            }
      });
    };
    p.launch(kernels::add, p.view(sums), p.view(probabilities).rows(mine), p.view(next_sums));
    p.launch(count, p.view(wishes), p.view(wanted).rows(mine), p.view(next_wishes));
  }
  /// Choices have no gradient.
  void towards_inputs(Pass& p) const {
    const View d = p.incoming(next_sums);
    p.launch(kernels::pass_on, d, p.gradient(sums));
    const Grad of_all = p.gradient(probabilities);
    if (!split) return p.launch(kernels::pass_on, d, of_all);
    const auto scope = p.scratch_scope();
    const View whole = p.scratch(p.planned(probabilities).shape, d.element).rows({0, of_all.view.shape.rows});
    p.tensor().all_gather(d, whole).wait();
    p.launch(kernels::pass_on, whole, of_all);
  }
};
/// `x_RC` goes on in the stream's place. dsx-E334 for a router that doesn't say what it found.
inline Judged tally(const Judged& before, Value<Common> x_RC, const Routes& routes) {
  Pass& p = *x_RC.pass;
  if (routes.probabilities == Routes::none || p.shape(routes.probabilities).columns != p.shape(before.wishes_RE.node).columns)
    fail<334>("layers are judged together over ", p.shape(before.wishes_RE.node).columns, " experts, and a router gives the probabilities of ",
              routes.probabilities == Routes::none ? 0 : p.shape(routes.probabilities).columns);
  const Element element = p.element(before.wishes_RE.node);
  const Judged next{x_RC, p.make<Common>(routes.experts, element), p.make<Common>(routes.experts, element)};
  p.run(TallyRoutes{{},
                    routes.probabilities,
                    routes.wanted,
                    before.probabilities_RE.node,
                    before.wishes_RE.node,
                    next.probabilities_RE.node,
                    next.wishes_RE.node,
                    p.tokens(),
                    p.token_split()});
  return next;
}

struct JointBalanceLoss : Operation {
  static constexpr const char* name = "joint_balance_loss";
  Node probabilities, wishes, sums, loss;  // sums: 2 x experts, of wishes and of probabilities, over all tokens
  double rows;                             // of the micro-batch
  bool split;
  void forward(Pass& p) const {
    const auto add_up = [](View wishes_RE, View probabilities_RE, View sums) {
      std::fill_n(sums.pointer<double>(), sums.size(), 0);
      dispatch(wishes_RE.element, [&](auto zero) {
        using W = decltype(zero);
        for (Extent r = 0; r < wishes_RE.shape.rows; ++r)
          for (Extent e = 0; e < wishes_RE.shape.columns; ++e)
            sums.at<double>(0, e) += double(wishes_RE.at<W>(r, e)), sums.at<double>(1, e) += double(probabilities_RE.at<W>(r, e));
      });
    };
    p.launch(add_up, p.view(wishes), p.view(probabilities), p.view(sums));
    if (split) p.tensor().all_reduce(p.view(sums)).wait();
    const auto multiply = [](View both, double factor, View to) {
      double sum = 0;
      const Extent experts = both.shape.columns;
      for (Extent e = 0; e < experts; ++e) sum += both.at<double>(0, e) * both.at<double>(1, e);
      const double all = seen(both);
      *to.pointer<double>() = all > 0 ? factor * double(experts) * sum / (all * all) : 0;
    };
    p.launch(multiply, p.view(sums), rows, p.view(loss));
  }
  void towards_inputs(Pass& p) const {
    const auto pull = [](View both, double factor, View weight, Grad to) {
      const double all = seen(both), each = all > 0 ? *weight.pointer<double>() * factor * double(both.shape.columns) / (all * all) : 0;
      dispatch(to.view.element, [&](auto zero) {
        using W = decltype(zero);
        for (Extent r = 0; r < to.view.shape.rows; ++r)
          for (Extent e = 0; e < both.shape.columns; ++e) {
            W& d = to.view.at<W>(r, e);
            d = W((to.accumulate ? double(d) : 0.0) + each * both.at<double>(0, e));
          }
      });
    };
    p.launch(pull, p.view(sums), rows, p.incoming(loss), p.gradient(probabilities));
  }

 private:
  /// Tokens times layers: each wishes for one in all.
  static double seen(View both) {
    double all = 0;
    for (Extent e = 0; e < both.shape.columns; ++e) all += both.at<double>(0, e);
    return all;
  }
};
/// 1 for routers without preference; a mean over the rows of the step, micro-batch by micro-batch. Hugging Face's is `choices` times as large.
inline void add_joint_balance_loss(const Judged& stream, double weight) {
  Pass& p = *stream.x_RC.pass;
  if (weight == 0 || !p.training) return;
  const Node sums = p.make({.bound = 2, .live = 2}, p.shape(stream.wishes_RE.node).columns, Element::f64), loss = p.make_scalar(Element::f64);
  p.run(JointBalanceLoss{{}, stream.probabilities_RE.node, stream.wishes_RE.node, sums, loss, double(p.rows().live), p.token_split()});
  p.add_loss(loss, weight / p.step_rows());  // whole on every rank, also where tokens are split
}

}  // namespace dsx
