// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Causal self-attention with rotary positions and grouped queries (Ainslie et al. 2023), as in Llama: the tensor axis cuts keys and values
/// by heads, and with each goes the group of query heads that shares it.
///
///     RotaryAttention<UnbiasedColumns> attention{{.channels = 4096, .heads = 32, .key_value = 8}, {.base = 500000}};
///     RotaryAttention<ColumnLinear> biased{...};   // Qwen2's: biases on queries, keys and values
#pragma once

#include <dsx/nn/unbiased.hpp>
#include <dsx/ops/attention.hpp>
#include <dsx/ops/fan.hpp>
#include <dsx/ops/rope.hpp>

namespace dsx {

/// Heads of the whole model. key_value 0: as many as heads; dim 0: channels / heads.
struct GroupedHeads {
  Extent channels = 1, heads = 1, key_value = 0, dim = 0;

  /// With nothing left to derive; dsx-E307, dsx-E330.
  GroupedHeads checked() const {
    GroupedHeads g = *this;
    if (g.key_value == 0) g.key_value = g.heads;
    if (g.heads == 0 || (g.dim == 0 && g.channels % g.heads != 0)) fail<307>(g.heads, " heads don't divide a width of ", g.channels);
    if (g.dim == 0) g.dim = g.channels / g.heads;
    if (g.heads % g.key_value != 0) fail<330>(g.heads, " query heads can't share ", g.key_value, " heads of keys and values equally");
    return g;
  }
  Extent group() const { return heads / key_value; }
  Split qkv_split() const { return {.cut = Cut::columns, .pieces = 3, .grain = dim, .lead = group()}; }
};

template <class Projection>
struct RotaryAttention {
  GroupedHeads heads;
  Rope positions;
  Projection qkv;
  RowLinear out;
  double dropout_rate;

  RotaryAttention(const GroupedHeads& h, const Rope& rope, double dropout = 0)
      : heads{h.checked()},
        positions{rope},
        qkv{heads.channels, (heads.heads + 2 * heads.key_value) * heads.dim, heads.qkv_split()},
        out{heads.heads * heads.dim, heads.channels, {Cut::rows, 1, heads.group() * heads.dim}},
        dropout_rate{dropout} {}
  void parts(auto& visit) const { visit("qkv", qkv), visit("out", out); }
  Value<Common> operator()(Value<Common> x_RC) const {
    const Range keys = x_RC.pass->tensor().part(heads.key_value);
    const Extent group = heads.group();
    const Heads mine{keys.size() * group, keys.size(), heads.dim, keys.begin * group};
    return fan_in(out(causal_attention(rope(qkv(fan_out(x_RC)), mine, positions), mine, dropout_rate)));
  }
};

}  // namespace dsx
