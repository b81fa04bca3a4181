// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// GPT-2 (Radford et al. 2019): an alias of layers, its shape, and its parameters' names in Hugging Face files.
///
///     auto model = make_gpt2({.vocabulary = 50257, .positions = 1024, .width = 768, .heads = 12, .layers = 12});
#pragma once

#include <dsx/core/flag.hpp>
#include <dsx/io/name_pattern.hpp>
#include <dsx/nn/block.hpp>
#include <dsx/nn/embedding.hpp>
#include <dsx/nn/sequential.hpp>

#include <cmath>

namespace dsx {

struct Gpt2Shape {
  Extent vocabulary = 50257, positions = 1024, width = 768, heads = 12, layers = 12, hidden = 0;  // hidden 0: 4 width
  double dropout = 0, attention_dropout = 0;  // of the embeddings and what joins the stream; of attention's probabilities
  double epsilon = 1e-5;
  Gelu gelu = Gelu::tanh;
};

void each_flag(Gpt2Shape& s, auto&& flag) {
  flag({"Model", "--layers", "blocks", 1}, s.layers);
  flag({"Model", "--width", "channels of the residual stream", 1}, s.width);
  flag({"Model", "--heads", "heads of attention", 1}, s.heads);
  flag({"Model", "--dropout", "rate: of embeddings, attention's probabilities and what joins the stream", 0, 0.99}, s.dropout);
}

using Gpt2Block = PreNormBlock<LayerNorm, CausalAttention, Mlp>;
using Gpt2 = Sequential<Named<Embedding>, Named<Repeat<Gpt2Block>>, Named<Chain<Named<LayerNorm>, Named<Head>>>>;

/// The embedding's table is the head's; projections into the residual stream start smaller by the root of their number.
inline Gpt2 make_gpt2(const Gpt2Shape& s) {
  const float into_stream = default_deviation / std::sqrt(2.0F * float(s.layers ? s.layers : 1));
  const LayerNorm norm{s.width, s.epsilon};
  const Gpt2Block block{norm, CausalAttention{s.width, s.heads, into_stream, s.attention_dropout}, norm,
                        Mlp{s.width, s.hidden ? s.hidden : 4 * s.width, s.gelu, into_stream}, s.dropout};
  return Gpt2{Named{"embedding", Embedding{s.vocabulary, s.positions, s.width, s.dropout, "token_table"}}, Named{"blocks", Repeat{s.layers, block}},
              Named{"final", Chain{Named{"norm", norm}, Named{"head", Head{s.vocabulary, s.width, "token_table"}}}}};
}

/// Our paths and the Hugging Face names of the same tensors; {i} counts blocks. Both store products as [in, out].
inline constexpr NamePattern gpt2_weight_names[] = {
    {"token_table", "wte.weight"},
    {"embedding.positions", "wpe.weight"},
    {"blocks.{i}.attention_norm.gain", "h.{i}.ln_1.weight"},
    {"blocks.{i}.attention_norm.bias", "h.{i}.ln_1.bias"},
    {"blocks.{i}.attention.qkv.weight", "h.{i}.attn.c_attn.weight"},
    {"blocks.{i}.attention.qkv.bias", "h.{i}.attn.c_attn.bias"},
    {"blocks.{i}.attention.out.weight", "h.{i}.attn.c_proj.weight"},
    {"blocks.{i}.attention.out_bias", "h.{i}.attn.c_proj.bias"},
    {"blocks.{i}.mlp_norm.gain", "h.{i}.ln_2.weight"},
    {"blocks.{i}.mlp_norm.bias", "h.{i}.ln_2.bias"},
    {"blocks.{i}.mlp.up.weight", "h.{i}.mlp.c_fc.weight"},
    {"blocks.{i}.mlp.up.bias", "h.{i}.mlp.c_fc.bias"},
    {"blocks.{i}.mlp.down.weight", "h.{i}.mlp.c_proj.weight"},
    {"blocks.{i}.mlp.down_bias", "h.{i}.mlp.c_proj.bias"},
    {"final.norm.gain", "ln_f.weight"},
    {"final.norm.bias", "ln_f.bias"},
};

}  // namespace dsx
