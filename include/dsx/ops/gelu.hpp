// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// GELU of a value, element by element.
///
///     auto y = gelu(up(x));                 // GPT-2's form, by tanh
///     auto z = gelu(up(x), Gelu::erf);
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

struct GeluOperation : Operation {
  static constexpr const char* name = "gelu";
  static constexpr OperationClass operation_class = OperationClass::elementwise;
  Node x, y;
  Gelu form;
  auto results() const { return std::array{y}; }
  Cost cost(Pass& p) const { return {.bytes = 2.0 * double(p.shape(x).size() * bytes_of(p.element(x)))}; }
  void forward(Pass& p) const { p.launch(kernels::gelu, p.view(x), p.view(y), form); }
  void towards_inputs(Pass& p) const { p.launch(kernels::gelu_pullback, p.view(x), p.incoming(y), p.gradient(x), form); }
};
template <class D>
auto gelu(Value<D> x, Gelu form = Gelu::tanh) {
  using Out = Result<op::Elementwise, D>;
  static_assert(accepted<Out>,
                "dsx-E207: gelu isn't linear, so it can't act on a term of a sum (Partial); finish the sum first: gelu(fan_in(value))");
  if constexpr (!accepted<Out>) {
    return Refused{};
  } else {
    auto y = x.pass->template make<Out>(x.pass->shape(x.node).columns, x.pass->element(x.node));
    x.pass->run(GeluOperation{{}, x.node, y.node, form});
    return y;
  }
}

}  // namespace dsx
