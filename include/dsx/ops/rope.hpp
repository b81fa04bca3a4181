// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Rotary positions of the queries and keys in front of attention. Positions are the batch's, so that rows behind a cache go on counting.
///
///     auto y = causal_attention(rope(qkv(fan_out(x)), heads, {.base = 500000}), heads);
#pragma once

#include <dsx/kernels/rope.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

struct RopeOperation : Operation {
  static constexpr const char* name = "rope";
  Node x, y;
  Heads heads;
  Rope rope;
  Cost cost(Pass& p) const {
    const double turned = double(p.shape(x).rows) * double((heads.query + heads.key_value) * heads.dim);
    return {3 * turned, 2.0 * double(p.shape(x).size() * bytes_of(p.element(x)))};
  }
  void forward(Pass& p) const { p.launch(kernels::rope, p.view(x), heads, p.batch().positions, rope, p.view(y)); }
  void towards_inputs(Pass& p) const { p.launch(kernels::rope_pullback, p.incoming(y), heads, p.batch().positions, rope, p.gradient(x)); }
};
/// `heads`: those of this rank. dsx-E301 for heads of an odd number of channels, dsx-E302 for columns that aren't theirs.
inline Value<Sharded> rope(Value<Sharded> qkv, const Heads& heads, const Rope& how = {}) {
  Pass& p = *qkv.pass;
  if (heads.dim % 2 != 0) fail<301>("rotary positions turn pairs of channels; heads of ", heads.dim, " have one left over");
  const Extent columns = p.shape(qkv.node).columns;
  if (columns != heads.columns())
    fail<302>("rotary positions of ", heads.query, " + 2 x ", heads.key_value, " heads of ", heads.dim, " need ", heads.columns(),
              " columns, the value has ", columns);
  const auto y = p.make<Sharded>(columns, p.element(qkv.node));
  p.run(RopeOperation{{}, qkv.node, y.node, heads, how});
  return y;
}

}  // namespace dsx
