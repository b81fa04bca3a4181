// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Causal self-attention: the tensor axis cuts its heads.
///
///     CausalAttention attention{768, 12};
///     CausalAttention dropping{768, 12, default_deviation, 0.1};   // drops a tenth of its probabilities in training
#pragma once

#include <dsx/nn/linear.hpp>
#include <dsx/ops/attention.hpp>
#include <dsx/ops/fan.hpp>

namespace dsx {

struct CausalAttention {
  Extent heads, head_dim;
  ColumnLinear qkv;
  RowLinear out;
  Parameter out_bias;
  double dropout_rate;

  CausalAttention(Extent channels, Extent heads_, float out_deviation = default_deviation, double dropout = 0)
      : heads{heads_},
        head_dim{checked_head_dim(channels, heads_)},
        qkv{channels, 3 * channels, {Cut::columns, 3, head_dim}},
        out{channels, channels, {Cut::rows, 1, head_dim}, out_deviation},
        out_bias{vector_parameter(channels)},
        dropout_rate{dropout} {}
  void parts(auto& visit) const { visit("qkv", qkv), visit("out", out), visit("out_bias", out_bias); }
  Value<Common> operator()(Value<Common> x_RC) const {
    const Range here = x_RC.pass->tensor().part(heads);
    const Heads mine{here.size(), here.size(), head_dim, here.begin};
    return add_bias(fan_in(out(causal_attention(qkv(fan_out(x_RC)), mine, dropout_rate))), out_bias);
  }

 private:
  static Extent checked_head_dim(Extent channels, Extent heads) {
    if (heads == 0 || channels % heads != 0) fail<307>(heads, " heads don't divide a width of ", channels);
    return channels / heads;
  }
};

}  // namespace dsx
