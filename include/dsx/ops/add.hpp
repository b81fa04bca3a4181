// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The sum of two values, and the product with a constant: linear, so terms of a sum (Partial) may take part.
///
///     auto y = x + branch(x);
///     auto z = scale(y, 0.5);
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

struct Add : Operation {
  static constexpr const char* name = "add";
  static constexpr OperationClass operation_class = OperationClass::sums;
  Node a, b, y;
  auto results() const { return std::array{y}; }
  void forward(Pass& p) const { p.launch(kernels::add, p.view(a), p.view(b), p.view(y)); }
  void towards_inputs(Pass& p) const {
    p.launch(kernels::pass_on, p.incoming(y), p.gradient(a));
    p.launch(kernels::pass_on, p.incoming(y), p.gradient(b));
  }
};
/// Both of one shape; dsx-E301.
template <class A, class B>
auto operator+(Value<A> a, Value<B> b) {
  using Out = Result<op::Add, A, B>;
  constexpr bool one_is_partial = is_partial<A> != is_partial<B>;
  static_assert(!one_is_partial,
                "dsx-E205: one addend is a term of a sum over the tensor axis (Partial), the other isn't; finish the sum first: fan_in(value)");
  static_assert(one_is_partial || accepted<Out>,
                "dsx-E206: the addends lie differently over the tensor axis (one is split by channels); bring both to Common first");
  if constexpr (!accepted<Out>) {
    return Refused{};
  } else {
    Pass& p = *a.pass;
    const Shape left = p.shape(a.node), right = p.shape(b.node);
    if (left != right) fail<301>("a value of ", left.rows, " x ", left.columns, " plus one of ", right.rows, " x ", right.columns);
    auto y = p.make<Out>(left.columns, p.element(a.node));
    p.run(Add{{}, a.node, b.node, y.node});
    return y;
  }
}

struct Scale : Operation {
  static constexpr const char* name = "scale";
  static constexpr OperationClass operation_class = OperationClass::elementwise;
  Node x, y;
  double factor;
  auto results() const { return std::array{y}; }
  void forward(Pass& p) const { p.launch(kernels::scale, p.view(x), factor, p.view(y)); }
  void towards_inputs(Pass& p) const {
    const Grad dx = p.gradient(x);
    const auto scope = p.scratch_scope();
    const View scaled = p.scratch(p.shape(y), p.element(y));
    p.launch(kernels::scale, p.incoming(y), factor, scaled);
    p.launch(kernels::pass_on, scaled, dx);
  }
};
template <class D>
Value<D> scale(Value<D> x, double factor) {
  auto y = x.pass->template make<D>(x.pass->shape(x.node).columns, x.pass->element(x.node));
  x.pass->run(Scale{{}, x.node, y.node, factor});
  return y;
}

}  // namespace dsx
