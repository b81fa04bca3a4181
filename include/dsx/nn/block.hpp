// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A transformer block with its norms in front (Radford et al. 2019), over any norm, attention and feed-forward layer.
///
///     PreNormBlock block{LayerNorm{c}, CausalAttention{c, heads}, LayerNorm{c}, Mlp{c, 4 * c}, dropout};
#pragma once

#include <dsx/nn/attention.hpp>
#include <dsx/nn/mlp.hpp>
#include <dsx/nn/norm.hpp>
#include <dsx/ops/add.hpp>

namespace dsx {

template <class Norm, class Attention, class FeedForward>
struct PreNormBlock {
  Norm attention_norm;
  Attention attention;
  Norm mlp_norm;
  FeedForward mlp;
  double dropout_rate = 0;

  void parts(auto& visit) const {
    visit("attention_norm", attention_norm), visit("attention", attention), visit("mlp_norm", mlp_norm), visit("mlp", mlp);
  }
  Value<Common> operator()(Value<Common> x_RC) const {
    const Value<Common> y_RC = x_RC + dropout(attention(attention_norm(x_RC)), dropout_rate);
    return y_RC + dropout(mlp(mlp_norm(y_RC)), dropout_rate);
  }
  /// Of a stream that has more beside it: the feed-forward layer takes the rest along.
  template <Flow Stream>
    requires requires(Stream s) { s.with(s.x_RC); }
  Stream operator()(Stream in) const {
    const Value<Common> y_RC = in.x_RC + dropout(attention(attention_norm(in.x_RC)), dropout_rate);
    const Stream out = mlp(in.with(mlp_norm(y_RC)));
    return out.with(y_RC + dropout(out.x_RC, dropout_rate));
  }
};
template <class N, class A, class F>
PreNormBlock(N, A, N, F, double) -> PreNormBlock<N, A, F>;

}  // namespace dsx
