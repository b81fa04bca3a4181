// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Inverted dropout. Draws are keyed by row id and column, so every layout and every recomputation drops the same elements.
///
///     auto y = dropout(x, 0.1);   // in training; an evaluation passes x on
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

struct Dropout : Operation {
  static constexpr const char* name = "dropout";
  static constexpr OperationClass operation_class = OperationClass::elementwise;
  Node x, y;
  double rate;
  RandomKey key;
  auto results() const { return std::array{y}; }
  void forward(Pass& p) const { p.launch(kernels::dropout, p.view(x), Grad{p.view(y), false}, p.rows(x).ids, Extent{0}, rate, key); }
  void towards_inputs(Pass& p) const { p.launch(kernels::dropout, p.incoming(y), p.gradient(x), p.rows(x).ids, Extent{0}, rate, key); }
};
/// Of whole rows: a Common or Replicated value. `rate` in [0, 1).
template <class D>
auto dropout(Value<D> x, double rate) {
  using Out = Result<op::Dropout, D>;
  static_assert(accepted<Out>,
                "dsx-E209: dropout numbers the columns of whole rows: give it a Common or Replicated value, fan_in(value) makes one of a Partial");
  if constexpr (!accepted<Out>) {
    return Refused{};
  } else {
    if (rate < 0 || rate >= 1) fail<301>("a dropout rate of ", rate, "; it lies in [0, 1)");
    Pass& p = *x.pass;
    if (!p.training || rate == 0) return x;
    auto y = p.make<Out>(p.shape(x.node).columns, p.element(x.node));
    p.run(Dropout{{}, x.node, y.node, rate, p.random()});
    return y;
  }
}

}  // namespace dsx
