// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Layer normalisation of whole rows.
///
///     auto y = layer_norm(x, gain, bias, 1e-5);
#pragma once

#include <dsx/kernels/layer_norm.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

struct Norm : Operation {
  static constexpr const char* name = "layer_norm";
  static constexpr OperationClass operation_class = OperationClass::norms;
  Node x, y, stats;
  Slot gain, bias;
  double epsilon;
  Axes partial;
  auto results() const { return std::array{y, stats}; }
  void forward(Pass& p) const {
    p.launch(kernels::layer_norm, p.view(x), p.weight(gain), p.weight(bias), epsilon, p.view(y), p.view(stats));
  }
  void towards_inputs(Pass& p) const {
    p.launch(kernels::layer_norm_inputs, p.view(x), p.weight(gain), p.view(stats), p.incoming(y), p.gradient(x));
  }
  void towards_weights(Pass& p) const {
    if (!p.trained(gain) && !p.trained(bias)) return;
    const Grad dgain = p.weight_gradient_or_scratch(gain, partial), dbias = p.weight_gradient_or_scratch(bias, partial);
    p.launch(kernels::layer_norm_weights, p.view(x), p.view(stats), p.incoming(y), dgain, dbias);
  }
};
template <class D>
auto layer_norm(Value<D> x, const Parameter& gain, const Parameter& bias, double epsilon = 1e-5) {
  using Out = Result<op::Norm, D>;
  static_assert(accepted<Out>, "dsx-E209: a norm needs whole rows: give it a Common or Replicated value, fan_in(value) makes one of a Partial");
  if constexpr (!accepted<Out>) {
    return Refused{};
  } else {
    Pass& p = *x.pass;
    const Extent columns = p.shape(x.node).columns, size = p.weight(gain.slot).size();
    if (columns != size) fail<302>("a value of ", columns, " columns under a norm of ", size);
    const Element element = p.element(x.node);
    auto y = p.make<Out>(columns, element), stats = p.make<Out>(2, wide(element));
    p.run(Norm{{}, x.node, y.node, stats.node, gain.slot, bias.slot, epsilon, p.partial<D>(gain.slot)});
    return y;
  }
}

}  // namespace dsx
