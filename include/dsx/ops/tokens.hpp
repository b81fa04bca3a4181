// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A residual stream that is split by tokens, whole for a while: for layers that look at all tokens but aren't cut by the tensor axis.
///
///     Value<Common> y = with_all_tokens(x, [&](Value<Common> all) { return experts(all); });
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

/// Every rank gets all tokens; what comes back is the same on each, so a rank takes its own tokens' gradient.
struct GatherTokens : Operation {
  static constexpr const char* name = "gather_tokens";
  Node x, y;
  Range mine;
  void forward(Pass& p) const { p.tensor().all_gather(p.view(x), p.view(y)).wait(); }
  void towards_inputs(Pass& p) const { p.launch(kernels::pass_on, p.incoming(y).rows(mine), p.gradient(x)); }
};
/// The converse: a rank keeps its own tokens, and backward gathers.
struct SliceTokens : Operation {
  static constexpr const char* name = "slice_tokens";
  Node x, y;
  Range mine;
  void forward(Pass& p) const { p.launch(kernels::copy, p.view(x).rows(mine), p.view(y)); }
  void towards_inputs(Pass& p) const {
    const View dy = p.incoming(y);
    const Grad dx = p.gradient(x);
    const auto scope = p.scratch_scope();
    const View whole = dx.accumulate ? p.scratch(p.planned(x).shape, dy.element).rows({0, dx.view.shape.rows}) : dx.view;
    p.tensor().all_gather(dy, whole).wait();
    if (dx.accumulate) p.launch(kernels::pass_on, whole, dx);
  }
};

/// f of all tokens of the micro-batch on every rank of the tensor axis. Where the stream isn't split it is f(x).
template <class F>
Value<Common> with_all_tokens(Value<Common> x_RC, const F& f) {
  Pass& p = *x_RC.pass;
  if (!p.token_split()) return f(x_RC);
  const Range mine = p.tokens();
  const Value<Common> y_RC = [&] {
    const auto scope = p.with_rows(p.rows());
    const auto all_RC = p.make<Common>(p.shape(x_RC.node).columns, p.element(x_RC.node));
    p.run(GatherTokens{{}, x_RC.node, all_RC.node, mine});
    return f(all_RC);
  }();
  const auto kept_RC = p.make<Common>(p.shape(y_RC.node).columns, p.element(y_RC.node));
  p.run(SliceTokens{{}, y_RC.node, kept_RC.node, mine});
  return kept_RC;
}

}  // namespace dsx
