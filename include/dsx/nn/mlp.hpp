// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The feed-forward part of a transformer block.
///
///     Mlp mlp{768, 3072};
#pragma once

#include <dsx/nn/linear.hpp>
#include <dsx/ops/fan.hpp>
#include <dsx/ops/gelu.hpp>

namespace dsx {

/// GELU stands in the epilogue of `up`.
struct Mlp {
  ColumnLinear up;
  RowLinear down;
  Parameter down_bias;
  Mlp(Extent channels, Extent hidden, Gelu form = Gelu::tanh, float down_deviation = default_deviation)
      : up{channels, hidden, {Cut::columns}, form}, down{hidden, channels, {Cut::rows}, down_deviation}, down_bias{vector_parameter(channels)} {}
  void parts(auto& visit) const { visit("up", up), visit("down", down), visit("down_bias", down_bias); }
  Value<Common> operator()(Value<Common> x_RC) const { return add_bias(fan_in(down(up(fan_out(x_RC)))), down_bias); }
};

}  // namespace dsx
