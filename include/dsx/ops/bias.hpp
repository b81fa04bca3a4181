// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A bias added to each row, or a stack of biases to the rows of experts. After a row-parallel product it is a layer of its own, behind
/// fan_in.
///
///     auto y = add_bias(fan_in(down(h)), bias);
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

/// A stack of weights needs rows in as many groups.
inline void check_stack(Pass& p, Node x, Slot weight) {
  const Extent stack = p.stack(weight), groups = p.rows(x).groups;
  if (stack > 1 && stack != groups)
    fail<349>("a stack of ", stack, " weights meets rows in ", groups, " groups; a layer of experts runs within Experts, on its router's rows");
}
/// Of each group of rows by itself, if there are several and as many gradients.
inline void grouped_column_sums(View dy_RC, const Rows& rows, Grad dbias_GC) {
  const Extent columns = dy_RC.shape.columns, stack = columns == 0 ? 1 : dbias_GC.view.size() / columns;
  if (stack == 1) return kernels::column_sums(dy_RC, dbias_GC);
  for (Extent g = 0; g < stack; ++g)
    kernels::column_sums(dy_RC.rows({rows.begin[g], rows.begin[g + 1]}), {dbias_GC.view.part({g * columns, (g + 1) * columns}), dbias_GC.accumulate});
}

struct AddBias : Operation {
  static constexpr const char* name = "bias";
  static constexpr OperationClass operation_class = OperationClass::elementwise;
  Node x, y;
  Slot bias;
  Axes partial;
  auto results() const { return std::array{y}; }
  void forward(Pass& p) const {
    const auto add = [](View from, const Rows& rows, View biases, View to) {
      const Extent columns = from.shape.columns, stack = columns == 0 ? 1 : biases.size() / columns;
      if (stack == 1) return kernels::add_bias(from, biases, to);
      for (Extent g = 0; g < stack; ++g) {
        const Range r{rows.begin[g], rows.begin[g + 1]};
        kernels::add_bias(from.rows(r), biases.part({g * columns, (g + 1) * columns}), to.rows(r));
      }
    };
    p.launch(add, p.view(x), p.rows(x), p.weight(bias), p.view(y));
  }
  void towards_inputs(Pass& p) const { p.launch(kernels::pass_on, p.incoming(y), p.gradient(x)); }
  void towards_weights(Pass& p) const {
    if (p.trained(bias)) p.launch(grouped_column_sums, p.incoming(y), p.rows(y), p.weight_gradient(bias, partial));
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
    check_stack(p, x.node, bias.slot);
    const Extent columns = p.shape(x.node).columns, size = p.weight(bias.slot).size() / p.stack(bias.slot);
    if (columns != size) fail<302>("a value of ", columns, " columns plus a bias of ", size);
    auto y = p.make<Out>(columns, p.element(x.node));
    p.run(AddBias{{}, x.node, y.node, bias.slot, p.partial<D>(bias.slot)});
    return y;
  }
}

}  // namespace dsx
