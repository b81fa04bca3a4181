// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Causal self-attention of each sequence of the micro-batch, by online softmax: memory is linear in the rows.
///
///     auto y = causal_attention(qkv(fan_out(x)), {.query = 12, .key_value = 12, .dim = 64}, 0.1);   // drops probabilities in training
#pragma once

#include <dsx/pass/attending.hpp>

namespace dsx {

struct CausalAttentionOperation : Operation {
  static constexpr const char* name = "attention";
  Node qkv, y, log_sums;
  Heads heads;
  double dropout_rate;
  RandomKey key;
  kernels::AttentionDropout dropout(Pass& p) const { return {dropout_rate, key, p.rows(qkv).ids}; }
  Cost cost(Pass& p) const {  // two products of half a T x T square a head
    double pairs = 0;
    const Sequences& sequences = p.batch().sequences;
    if (p.dry()) pairs = double(p.shape(y).rows) * double(p.shape(y).rows) / 2;
    for (Extent s = 0; s < sequences.count(); ++s) pairs += double(sequences[s].size()) * double(sequences[s].size()) / 2;
    return {4.0 * pairs * double(heads.query * heads.dim)};
  }
  void forward(Pass& p) const { p.launch(kernels::attention, p.view(qkv), heads, p.batch().sequences, p.view(y), p.view(log_sums), dropout(p)); }
  void towards_inputs(Pass& p) const {
    const Grad dqkv = p.gradient(qkv);
    const auto scope = p.scratch_scope();
    const View scratch = p.scratch_bytes(kernels::attention_scratch(p.planned(y).shape.rows, heads, p.element(y)));
    p.launch(kernels::attention_pullback, p.view(qkv), heads, p.batch().sequences, p.view(y), p.view(log_sums), p.incoming(y), dqkv, scratch,
             dropout(p));
  }
};
/// `heads`: those of this rank; `dropout_rate` in [0, 1): of probabilities, keyed by the query's row id, head and key, in any layout the same.
inline Value<Sharded> causal_attention(Value<Sharded> qkv, const Heads& heads, double dropout_rate = 0) {
  Pass& p = *qkv.pass;
  if (dropout_rate < 0 || dropout_rate >= 1) fail<301>("a dropout rate of ", dropout_rate, "; it lies in [0, 1)");
  if (p.shape(qkv.node).columns != heads.columns())
    fail<302>("attention of ", heads.query, " + 2 x ", heads.key_value, " heads of ", heads.dim, " needs ", heads.columns(),
              " columns, the value has ", p.shape(qkv.node).columns);
  if (p.attending) {
    if (p.recording) fail<408>("a pass that is recorded for its gradient can't attend to a cache");
    return p.attending->attend(qkv, heads);
  }
  const Element element = p.element(qkv.node);
  const auto y = p.make<Sharded>(heads.query * heads.dim, element), log_sums = p.make<Sharded>(heads.query, wide(element));
  const bool drops = p.training && dropout_rate > 0;
  p.run(CausalAttentionOperation{{}, qkv.node, y.node, log_sums.node, heads, drops ? dropout_rate : 0, drops ? p.random() : RandomKey{}});
  return y;
}

}  // namespace dsx
