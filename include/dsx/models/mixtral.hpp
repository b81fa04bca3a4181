// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Mixtral (Jiang et al. 2024): Llama whose feed-forward layers are mixtures of experts; an alias of layers over any router, and its
/// parameters' names in Hugging Face files.
///
///     const LlamaShape shape{.width = 4096, .heads = 32, .key_value_heads = 8, .layers = 32, .hidden = 14336};
///     auto model = make_mixtral(shape, Dropless<2>{.width = 4096, .experts = 8});
///     auto seated = make_mixtral(shape, TopK<1>{.width = 4096, .experts = 8, .capacity_factor = 1.25});
#pragma once

#include <dsx/models/llama.hpp>
#include <dsx/moe/dropless.hpp>
#include <dsx/nn/any_router.hpp>
#include <dsx/nn/experts.hpp>
#include <dsx/nn/joint_balance.hpp>

namespace dsx {

template <class Router>
using MixtralOf = LlamaOf<UnbiasedColumns, Experts<Router, SwigluMlp>>;

/// As published: two experts a token, their weights divided by the sum, no token dropped.
using Mixtral = MixtralOf<Dropless<2>>;

template <ExpertRouter Router>
MixtralOf<Router> make_mixtral(const LlamaShape& s, const Router& router) {
  return make_llama_of<UnbiasedColumns>(s, Experts{router.experts, router, SwigluMlp{s.width, s.hidden}});
}

/// The router of a Mixtral of Hugging Face, whose tokens may go to more or fewer than two experts.
inline AnyRouter router_of(const LlamaConfig& c) {
  return {.width = c.hidden_size, .experts = c.num_local_experts, .choice = TokenChoice{.choices = c.num_experts_per_tok, .renormalised = true}};
}

/// Its routers judged together, as Hugging Face's loss does it: what routers found goes with the stream. The same parameters.
template <class Router>
using JointMixtralOf = Sequential<Named<BeginTally<TokenEmbedding>>, Named<Repeat<LlamaBlockOf<UnbiasedColumns, Experts<Router, SwigluMlp>>>>,
                                  Named<EndTally<LlamaEnd>>>;

/// `balance`: the loss's weight. Hugging Face's router_aux_loss_coef is this over the choices of a token.
template <ExpertRouter Router>
JointMixtralOf<Router> make_joint_mixtral(const LlamaShape& s, const Router& router, double balance) {
  const auto block = llama_block<UnbiasedColumns>(s, Experts{router.experts, router, SwigluMlp{s.width, s.hidden}});
  return JointMixtralOf<Router>{Named{"embedding", BeginTally{llama_begin(s), router.experts}}, Named{"blocks", Repeat{s.layers, block}},
                                Named{"final", EndTally{llama_end(s), balance}}};
}

/// What stands beside llama_weight_names: {e} counts experts, one tensor for each of their matrices.
inline constexpr NamePattern expert_weight_names[] = {
    {"blocks.{i}.mlp.router.gate", "model.layers.{i}.block_sparse_moe.gate.weight", true},
    {"blocks.{i}.mlp.experts.gate_up.weight[{e}]", "model.layers.{i}.block_sparse_moe.experts.{e}.w1.weight", true, 0},
    {"blocks.{i}.mlp.experts.down.weight[{e}]", "model.layers.{i}.block_sparse_moe.experts.{e}.w2.weight", true},
    {"blocks.{i}.mlp.experts.gate_up.weight[{e}]", "model.layers.{i}.block_sparse_moe.experts.{e}.w3.weight", true, 1},
};
/// The same as transformers 5 holds them in memory: a layer's experts in two tensors of three dimensions.
inline constexpr NamePattern fused_expert_weight_names[] = {
    {"blocks.{i}.mlp.router.gate", "model.layers.{i}.mlp.gate.weight", true},
    {"blocks.{i}.mlp.experts.gate_up.weight", "model.layers.{i}.mlp.experts.gate_up_proj", true},
    {"blocks.{i}.mlp.experts.down.weight", "model.layers.{i}.mlp.experts.down_proj", true},
};

}  // namespace dsx
