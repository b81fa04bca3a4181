// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The feed-forward part of Llama's block: down(silu(gate x) * up x), gate and up in one product, without biases.
///
///     SwigluMlp mlp{4096, 14336};
#pragma once

#include <dsx/nn/unbiased.hpp>
#include <dsx/ops/fan.hpp>
#include <dsx/ops/swiglu.hpp>

namespace dsx {

/// The tensor axis cuts gates and values alike: two pieces of one weight.
struct SwigluMlp {
  UnbiasedColumns gate_up;
  RowLinear down;
  SwigluMlp(Extent channels, Extent hidden, float down_deviation = default_deviation)
      : gate_up{channels, 2 * hidden, {Cut::columns, 2}}, down{hidden, channels, {Cut::rows}, down_deviation} {}
  void parts(auto& visit) const { visit("gate_up", gate_up), visit("down", down); }
  Value<Common> operator()(Value<Common> x_RC) const { return fan_in(down(swiglu(gate_up(fan_out(x_RC))))); }
};

}  // namespace dsx
