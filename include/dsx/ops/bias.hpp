// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A bias added to each row. After a row-parallel product it is a layer of its own, behind fan_in.
///
///     auto y = add_bias(fan_in(down(h)), bias);
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

struct AddBias : Operation {
  static constexpr const char* name = "bias";
  static constexpr OperationClass operation_class = OperationClass::elementwise;
  Node x, y;
  Slot bias;
  Axes partial;
  auto results() const { return std::array{y}; }
  void forward(Pass& p) const { p.launch(kernels::add_bias, p.view(x), p.weight(bias), p.view(y)); }
  void towards_inputs(Pass& p) const { p.launch(kernels::pass_on, p.incoming(y), p.gradient(x)); }
  void towards_weights(Pass& p) const {
    if (p.trained(bias)) p.launch(kernels::column_sums, p.incoming(y), p.weight_gradient(bias, partial));
  }
};
template <class D>
auto add_bias(Value<D> x, const Parameter& bias) {
  using Out = Result<op::Bias, D>;
  static_assert(accepted<Out>,
                "dsx-E208: a bias added to a term of a sum (Partial) would be added by every rank; finish the sum first: fan_in(value)");
  if constexpr (!accepted<Out>) {
    return Refused{};
  } else {
    Pass& p = *x.pass;
    const Extent columns = p.shape(x.node).columns, size = p.weight(bias.slot).size();
    if (columns != size) fail<302>("a value of ", columns, " columns plus a bias of ", size);
    auto y = p.make<Out>(columns, p.element(x.node));
    p.run(AddBias{{}, x.node, y.node, bias.slot, p.partial<D>(bias.slot)});
    return y;
  }
}

}  // namespace dsx
