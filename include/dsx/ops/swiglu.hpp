// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The gated linear unit of a value whose columns are gates, then as many values: silu(gate) * up.
///
///     auto y = swiglu(gate_up(fan_out(x)));   // the weight of gate_up is cut in two pieces: {Cut::columns, 2}
#pragma once

#include <dsx/kernels/swiglu.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

struct SwigluOperation : Operation {
  static constexpr const char* name = "swiglu";
  static constexpr OperationClass operation_class = OperationClass::elementwise;
  Node x, y;
  auto results() const { return std::array{y}; }
  Cost cost(Pass& p) const { return {.bytes = 1.5 * double(p.shape(x).size() * bytes_of(p.element(x)))}; }
  void forward(Pass& p) const { p.launch(kernels::swiglu, p.view(x), p.view(y)); }
  void towards_inputs(Pass& p) const { p.launch(kernels::swiglu_pullback, p.view(x), p.incoming(y), p.gradient(x)); }
};
template <class D>
auto swiglu(Value<D> x) {
  using Out = Result<op::Elementwise, D>;
  static_assert(accepted<Out>,
                "dsx-E207: swiglu isn't linear, so it can't act on a term of a sum (Partial); finish the sum first: swiglu(fan_in(value))");
  if constexpr (!accepted<Out>) {
    return Refused{};
  } else {
    Pass& p = *x.pass;
    const Extent columns = p.shape(x.node).columns;
    if (columns % 2 != 0) fail<301>("swiglu of ", columns, " columns; it needs as many gates as values");
    auto y = p.make<Out>(columns / 2, p.element(x.node));
    p.run(SwigluOperation{{}, x.node, y.node});
    return y;
  }
}

}  // namespace dsx
