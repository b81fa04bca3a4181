// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Normalisation of whole rows by their root mean square.
///
///     auto y = rms_norm(x, gain, 1e-6);
#pragma once

#include <dsx/kernels/rms_norm.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

struct RmsNormOperation : Operation {
  static constexpr const char* name = "rms_norm";
  static constexpr OperationClass operation_class = OperationClass::norms;
  Node x, y, scales;
  Slot gain;
  double epsilon;
  Axes partial;
  auto results() const { return std::array{y, scales}; }
  Cost cost(Pass& p) const { return {.bytes = 2.0 * double(p.shape(x).size() * bytes_of(p.element(x)))}; }
  void forward(Pass& p) const { p.launch(kernels::rms_norm, p.view(x), p.weight(gain), epsilon, p.view(y), p.view(scales)); }
  void towards_inputs(Pass& p) const {
    p.launch(kernels::rms_norm_inputs, p.view(x), p.weight(gain), p.view(scales), p.incoming(y), p.gradient(x));
  }
  void towards_weights(Pass& p) const {
    if (p.trained(gain)) p.launch(kernels::rms_norm_weights, p.view(x), p.view(scales), p.incoming(y), p.weight_gradient(gain, partial));
  }
};
template <class D>
auto rms_norm(Value<D> x, const Parameter& gain, double epsilon = 1e-6) {
  using Out = Result<op::Norm, D>;
  static_assert(accepted<Out>, "dsx-E209: a norm needs whole rows: give it a Common or Replicated value, fan_in(value) makes one of a Partial");
  if constexpr (!accepted<Out>) {
    return Refused{};
  } else {
    Pass& p = *x.pass;
    const Extent columns = p.shape(x.node).columns, size = p.weight(gain.slot).size();
    if (columns != size) fail<302>("a value of ", columns, " columns under a norm of ", size);
    const Element element = p.element(x.node);
    auto y = p.make<Out>(columns, element), scales = p.make<Out>(1, wide(element));
    p.run(RmsNormOperation{{}, x.node, y.node, scales.node, gain.slot, epsilon, p.partial<D>(gain.slot)});
    return y;
  }
}

}  // namespace dsx
