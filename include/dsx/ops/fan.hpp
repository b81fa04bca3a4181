// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The two crossings of the tensor axis: Common -> Replicated and Partial -> Common, each the other's converse.
///
///     Value<Common> y = fan_in(down(gelu(up(fan_out(x)))));   // Megatron's f and g (Shoeybi et al. 2019)
///
/// Where the mesh splits the residual stream by tokens they gather and scatter (Korthikanti et al. 2022).
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

/// Gives every rank the whole value. Split by tokens it gathers them, else it is free; backward sums.
struct FanOut : Operation {
  static constexpr const char* name = "fan_out";
  Node x, y;
  bool split;  // by tokens
  void forward(Pass& p) const {
    if (split) p.tensor().all_gather(p.view(x), p.view(y)).wait();
  }
  void towards_inputs(Pass& p) const {
    View dy = p.incoming(y);
    if (split) {
      const View mine = dy.rows(p.tokens());
      p.tensor().reduce_scatter(dy, mine).wait(), dy = mine;
    } else {
      p.tensor().all_reduce(dy).wait();
    }
    p.launch(kernels::pass_on, dy, p.gradient(x));
  }
};
inline Value<Replicated> fan_out(Value<Common> x) {
  Pass& p = *x.pass;
  const auto y = p.token_split() ? p.make<Replicated>(p.shape(x.node).columns) : Value<Replicated>{&p, p.alias(x.node)};
  p.run(FanOut{{}, x.node, y.node, p.token_split()});
  return y;
}

/// Finishes a sum over the tensor axis. Split by tokens each rank keeps its own; backward gathers, or is free.
struct FanIn : Operation {
  static constexpr const char* name = "fan_in";
  Node x, y;
  bool split;
  void forward(Pass& p) const {
    const View from = p.view(x), to = p.view(y);
    if (split) {
      p.tensor().reduce_scatter(from, to).wait();
    } else {
      p.launch(kernels::copy, from, to);
      p.tensor().all_reduce(to).wait();
    }
  }
  void towards_inputs(Pass& p) const {
    View dy = p.incoming(y);
    const Grad dx = p.gradient(x);
    const auto scope = p.scratch_scope();
    if (split) {
      const View whole = p.scratch(p.shape(x), dy.element);
      p.tensor().all_gather(dy, whole).wait(), dy = whole;
    }
    p.launch(kernels::pass_on, dy, dx);
  }
};
/// On one rank without a token split the sum is complete: no copy is made.
inline Value<Common> fan_in(Value<Partial> x) {
  Pass& p = *x.pass;
  if (p.tensor().size() == 1) return {&p, x.node};
  const auto y = p.make<Common>(p.shape(x.node).columns);
  p.run(FanIn{{}, x.node, y.node, p.token_split()});
  return y;
}

}  // namespace dsx
