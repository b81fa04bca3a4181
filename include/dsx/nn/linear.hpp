// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Linear layers, by how the tensor axis cuts their weight, and the bias that stands behind a row-parallel one.
///
///     ColumnLinear up{channels, 4 * channels};     // Replicated -> Sharded
///     RowLinear down{4 * channels, channels};      // Sharded -> Partial
#pragma once

#include <dsx/ops/bias.hpp>
#include <dsx/ops/linear.hpp>

namespace dsx {

/// GPT-2's deviation of starting weights.
inline constexpr float default_deviation = 0.02F;

/// Each rank of the tensor axis computes some of the output's columns. Weight [in, out].
struct ColumnLinear {
  Parameter weight, bias;
  std::optional<Activation> activation{};
  ColumnLinear(Extent in, Extent out, Split split = {Cut::columns}, std::optional<Activation> a = {})
      : weight{{in, out}, {0, default_deviation}, Role::matrix, split}, bias{vector_parameter(out)}, activation{a} {
    bias.split = split;
  }
  void parts(auto& visit) const { visit("weight", weight), visit("bias", bias); }
  Value<Sharded> operator()(Value<Replicated> x_RC) const { return linear<op::MatmulColumns>(x_RC, weight, &bias, activation); }
};

/// Each rank sums over some of the input's columns. A bias comes after fan_in: a Bias layer.
struct RowLinear {
  Parameter weight;
  RowLinear(Extent in, Extent out, Split split = {Cut::rows}, float deviation = default_deviation)
      : weight{{in, out}, {0, deviation}, Role::matrix, split} {}
  void parts(auto& visit) const { visit("weight", weight); }
  Value<Partial> operator()(Value<Sharded> x_RC) const { return linear<op::MatmulRows>(x_RC, weight); }
};

/// Whole on every rank of the tensor axis: for small projections, and for models that aren't meant to be cut.
struct Linear {
  Parameter weight, bias;
  Linear(Extent in, Extent out, float deviation = default_deviation) : weight{{in, out}, {0, deviation}}, bias{vector_parameter(out)} {}
  void parts(auto& visit) const { visit("weight", weight), visit("bias", bias); }
  template <class D>
  auto operator()(Value<D> x_RC) const {
    constexpr bool defined = accepted<Result<op::Matmul, D>>;
    static_assert(defined, "dsx-E210: Linear takes a Common or Replicated value; fan_in(value) makes one of a Partial");
    if constexpr (defined)
      return linear<op::Matmul>(x_RC, weight, &bias);
    else
      return Refused{};
  }
};

struct Bias {
  Parameter bias;
  explicit Bias(Extent channels) : bias{vector_parameter(channels)} {}
  void parts(auto& visit) const { visit("bias", bias); }
  Value<Common> operator()(Value<Common> x_RC) const { return add_bias(x_RC, bias); }
};

}  // namespace dsx
