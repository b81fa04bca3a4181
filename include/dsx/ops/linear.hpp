// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Products with a weight: y = x W, with bias and GELU in the epilogue where the layer has them. A stack of weights takes the rows of
/// experts, each group of rows its own matrix.
///
///     auto y = linear<op::MatmulColumns>(fan_out(x), weight, &bias);
///     auto h = linear<op::MatmulColumns>(fan_out(x), weight, &bias, Activation{Gelu::tanh});
#pragma once

#include <dsx/kernels/matmul.hpp>
#include <dsx/ops/bias.hpp>
#include <dsx/ops/gelu.hpp>

#include <optional>

namespace dsx {

/// What a linear layer's epilogue applies: GELU in one of its forms.
using Activation = Gelu;

struct LinearOperation : Operation {
  static constexpr const char* name = "linear";
  Node x, y, activated;  // `activated` is y where there is no activation; the pullback between them is GELU's own
  Slot weight, bias;
  bool has_bias, transposed;
  Gelu form;
  Axes partial;

  Cost cost(Pass& p) const {
    // Shapes, not views: to look at a value in backward would keep it until then.
    const double values = double(p.shape(x).size() + p.shape(y).size()) * double(bytes_of(p.element(x)));
    return {2.0 * double(p.shape(x).size()) * double(p.shape(y).columns), double(p.weight(weight).bytes()) + values};
  }
  void forward(Pass& p) const {
    const View bias_N = has_bias ? p.weight(bias) : View{}, gelu_MN = activated != y ? p.view(activated) : View{};
    product(p, x, p.view(x), transposed, y, {p.view(y), false}, {bias_N, gelu_MN, form});
  }
  void towards_inputs(Pass& p) const { product(p, y, p.incoming(y), !transposed, x, p.gradient(x), {}); }
  void towards_weights(Pass& p) const {
    if (has_bias && p.trained(bias)) p.launch(grouped_column_sums, p.incoming(y), p.rows(y), p.weight_gradient(bias, partial));
    if (!p.trained(weight)) return;
    const Node in = transposed ? y : x, out = transposed ? x : y;
    const Grad dw = p.weight_gradient(weight, partial);
    const auto scope = p.scratch_scope();
    const View packing = p.scratch_bytes(kernels::matmul_scratch({p.planned(in), true}, {p.planned(out)}, dw.view));
    const View left = transposed ? p.incoming(y) : p.view(x), right = transposed ? p.view(x) : p.incoming(y);
    if (p.stack(weight) > 1)
      p.launch(kernels::grouped_matmul_weights, left, right, p.rows(x).bounds(), dw, packing);
    else
      p.launch(kernels::matmul, kernels::Matrix{left, true}, kernels::Matrix{right}, dw, kernels::Epilogue{}, packing);
  }

 private:
  /// result = or += operand W, W turned over or not; the nodes say what is planned.
  void product(Pass& p, Node from, View operand, bool turned, Node to, Grad result, const kernels::Epilogue& epilogue) const {
    const View w = p.weight(weight), one = w.rows({0, w.shape.rows / p.stack(weight)});
    const auto scope = p.scratch_scope();
    const View packing = p.scratch_bytes(kernels::matmul_scratch({p.planned(from)}, {one, turned}, p.planned(to)));
    if (p.stack(weight) > 1)
      p.launch(kernels::grouped_matmul, kernels::Matrix{operand}, w, turned, p.rows(x).bounds(), result, packing, epilogue);
    else
      p.launch(kernels::matmul, kernels::Matrix{operand}, kernels::Matrix{w, turned}, result, epilogue, packing);
  }
};

template <class Kind, class D>
auto linear(Value<D> x, const Parameter& weight, const Parameter* bias = nullptr, std::optional<Activation> activation = {},
            bool transposed = false) {
  using Out = Result<Kind, D>;
  static_assert(accepted<Out>, "dsx-E210: a matrix product isn't defined for a value that lies this way over the tensor axis");
  if constexpr (!accepted<Out>) {
    return Refused{};
  } else {
    Pass& p = *x.pass;
    check_stack(p, x.node, weight.slot);
    const Shape all = p.weight(weight.slot).shape, w{all.rows / p.stack(weight.slot), all.columns};
    const Extent inner = transposed ? w.columns : w.rows, columns = transposed ? w.rows : w.columns;
    if (p.shape(x.node).columns != inner) fail<302>("a value of ", p.shape(x.node).columns, " columns times a weight of ", inner, " rows");
    const Element element = p.element(x.node);
    auto y = p.make<Out>(columns, element);
    auto activated = activation ? p.make<Out>(columns, element) : y;
    p.run(LinearOperation{{}, x.node, y.node, activated.node, weight.slot, bias ? bias->slot : 0, bias != nullptr, transposed,
                          activation.value_or(Gelu::tanh), p.partial<D>(weight.slot)});
    if (activation) p.has_run(GeluOperation{{}, y.node, activated.node, *activation});
    return activated;
  }
}

}  // namespace dsx
