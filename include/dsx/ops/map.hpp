// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A user's own elementwise function: a functor with its derivative, written for one number.
///
///     struct Square {
///       static auto value(auto x) { return x * x; }
///       static auto derivative(auto x) { return 2 * x; }
///     };
///     auto y = map<Square>(x);
#pragma once

#include <dsx/pass/pass.hpp>

namespace dsx {

/// A type with static value(x) and derivative(x), for x float or double.
template <class F>
concept ElementwiseFunction = requires(float x, double y) {
  { F::value(x) } -> std::convertible_to<float>;
  { F::derivative(x) } -> std::convertible_to<float>;
  { F::value(y) } -> std::convertible_to<double>;
  { F::derivative(y) } -> std::convertible_to<double>;
};

namespace kernels {

template <ElementwiseFunction F>
void map(View x, View y) {
  dispatch(x.element, [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.pointer<T>();
    T* to = y.pointer<T>();
    for (Extent i = 0; i < x.size(); ++i) to[i] = T(F::value(Wide<T>(from[i])));
  });
}
template <ElementwiseFunction F>
void map_pullback(View x, View dy, Grad dx) {
  dispatch(x.element, [&](auto zero) {
    using T = decltype(zero);
    const T *from = x.pointer<T>(), *incoming = dy.pointer<T>();
    T* to = dx.view.pointer<T>();
    for (Extent i = 0; i < x.size(); ++i) {
      const auto slope = Wide<T>(incoming[i]) * F::derivative(Wide<T>(from[i]));
      to[i] = T(dx.accumulate ? Wide<T>(to[i]) + slope : slope);
    }
  });
}

}  // namespace kernels

template <ElementwiseFunction F>
struct Map : Operation {
  static constexpr const char* name = "map";
  static constexpr OperationClass operation_class = OperationClass::elementwise;
  Node x, y;
  auto results() const { return std::array{y}; }
  void forward(Pass& p) const { p.launch(kernels::map<F>, p.view(x), p.view(y)); }
  void towards_inputs(Pass& p) const { p.launch(kernels::map_pullback<F>, p.view(x), p.incoming(y), p.gradient(x)); }
};
template <ElementwiseFunction F, class D>
auto map(Value<D> x) {
  using Out = Result<op::Elementwise, D>;
  static_assert(
      accepted<Out>,
      "dsx-E207: this function isn't known to be linear, so it can't act on a term of a sum (Partial); finish the sum first: map(fan_in(value))");
  if constexpr (!accepted<Out>) {
    return Refused{};
  } else {
    auto y = x.pass->template make<Out>(x.pass->shape(x.node).columns, x.pass->element(x.node));
    x.pass->run(Map<F>{{}, x.node, y.node});
    return y;
  }
}

}  // namespace dsx
