// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Llama (Touvron et al. 2023) and Qwen2 (Yang et al. 2024): aliases of layers, their shape, and their parameters' names in Hugging Face
/// files.
///
///     auto model = make_llama({.vocabulary = 128256, .width = 4096, .heads = 32, .key_value_heads = 8, .layers = 32, .hidden = 14336});
///     auto other = make_qwen2({..., .tied = true});
#pragma once

#include <dsx/io/hf_llama.hpp>
#include <dsx/io/name_pattern.hpp>
#include <dsx/nn/block.hpp>
#include <dsx/nn/embedding.hpp>
#include <dsx/nn/gated_mlp.hpp>
#include <dsx/nn/rms_norm.hpp>
#include <dsx/nn/rotary_attention.hpp>
#include <dsx/nn/sequential.hpp>

namespace dsx {

struct LlamaShape {
  Extent vocabulary = 32000, width = 4096, heads = 32, key_value_heads = 0, head_dim = 0, layers = 32, hidden = 11008;  // 0: see GroupedHeads
  double epsilon = 1e-6;
  Rope rope{};
  bool tied = false;             // the head is the embedding's table
  double attention_dropout = 0;  // of attention's probabilities
};

inline LlamaShape shape_of(const LlamaConfig& c) {
  return {.vocabulary = c.vocab_size,
          .width = c.hidden_size,
          .heads = c.num_attention_heads,
          .key_value_heads = c.num_key_value_heads,
          .head_dim = c.head_dim,
          .layers = c.num_hidden_layers,
          .hidden = c.intermediate_size,
          .epsilon = c.rms_norm_eps,
          .rope = c.rope,
          .tied = c.tie_word_embeddings,
          .attention_dropout = c.attention_dropout};
}

using LlamaEnd = Chain<Named<RmsNorm>, Named<Head>>;

/// A decoder of Llama's kind; Projection makes queries, keys and values.
template <class Projection, class FeedForward = SwigluMlp>
using LlamaBlockOf = PreNormBlock<RmsNorm, RotaryAttention<Projection>, FeedForward>;
template <class Projection, class FeedForward = SwigluMlp>
using LlamaOf = Sequential<Named<TokenEmbedding>, Named<Repeat<LlamaBlockOf<Projection, FeedForward>>>, Named<LlamaEnd>>;

using Llama = LlamaOf<UnbiasedColumns>;
using Qwen2 = LlamaOf<ColumnLinear>;  // biases on queries, keys and values

inline std::string_view llama_tie(const LlamaShape& s) { return s.tied ? "embedding.tokens" : ""; }
inline TokenEmbedding llama_begin(const LlamaShape& s) { return {s.vocabulary, s.width, llama_tie(s)}; }
inline LlamaEnd llama_end(const LlamaShape& s) {
  return LlamaEnd{Named{"norm", RmsNorm{s.width, s.epsilon}}, Named{"head", Head{s.vocabulary, s.width, llama_tie(s)}}};
}
template <class Projection, class FeedForward>
LlamaBlockOf<Projection, FeedForward> llama_block(const LlamaShape& s, const FeedForward& feed_forward) {
  const RmsNorm norm{s.width, s.epsilon};
  const GroupedHeads heads{s.width, s.heads, s.key_value_heads, s.head_dim};
  return {norm, RotaryAttention<Projection>{heads, s.rope, s.attention_dropout}, norm, feed_forward};
}
template <class Projection, class FeedForward>
LlamaOf<Projection, FeedForward> make_llama_of(const LlamaShape& s, const FeedForward& feed_forward) {
  return LlamaOf<Projection, FeedForward>{Named{"embedding", llama_begin(s)},
                                          Named{"blocks", Repeat{s.layers, llama_block<Projection>(s, feed_forward)}}, Named{"final", llama_end(s)}};
}
inline Llama make_llama(const LlamaShape& s) { return make_llama_of<UnbiasedColumns>(s, SwigluMlp{s.width, s.hidden}); }
inline Qwen2 make_qwen2(const LlamaShape& s) { return make_llama_of<ColumnLinear>(s, SwigluMlp{s.width, s.hidden}); }

/// Our paths and the Hugging Face names of the same tensors, in the order of Hugging Face's shards; {i} counts blocks. They store products as
/// [out, in], and queries, keys and values, or gates and values, as tensors of their own. A model has those that it declares: biases, a head.
inline constexpr NamePattern llama_weight_names[] = {
    {"embedding.tokens", "model.embed_tokens.weight"},
    {"blocks.{i}.attention.qkv.weight", "model.layers.{i}.self_attn.q_proj.weight", true, 0},
    {"blocks.{i}.attention.qkv.bias", "model.layers.{i}.self_attn.q_proj.bias", false, 0},
    {"blocks.{i}.attention.qkv.weight", "model.layers.{i}.self_attn.k_proj.weight", true, 1},
    {"blocks.{i}.attention.qkv.bias", "model.layers.{i}.self_attn.k_proj.bias", false, 1},
    {"blocks.{i}.attention.qkv.weight", "model.layers.{i}.self_attn.v_proj.weight", true, 2},
    {"blocks.{i}.attention.qkv.bias", "model.layers.{i}.self_attn.v_proj.bias", false, 2},
    {"blocks.{i}.attention.out.weight", "model.layers.{i}.self_attn.o_proj.weight", true},
    {"blocks.{i}.mlp.gate_up.weight", "model.layers.{i}.mlp.gate_proj.weight", true, 0},
    {"blocks.{i}.mlp.gate_up.weight", "model.layers.{i}.mlp.up_proj.weight", true, 1},
    {"blocks.{i}.mlp.down.weight", "model.layers.{i}.mlp.down_proj.weight", true},
    {"blocks.{i}.attention_norm.gain", "model.layers.{i}.input_layernorm.weight"},
    {"blocks.{i}.mlp_norm.gain", "model.layers.{i}.post_attention_layernorm.weight"},
    {"final.norm.gain", "model.norm.weight"},
    {"final.head.table", "lm_head.weight"},
};

}  // namespace dsx
