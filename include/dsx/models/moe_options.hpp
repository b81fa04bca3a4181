// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a command line says of a Llama with mixtures of experts: its shape, its router, and experts that every token passes.
///
///     MoeOptions moe{.experts = 8, .top_k = 2};
///     each_flag(moe, [&](const Flag& flag, auto& field) { ... });
///     const LlamaConfig config = config_of(moe, vocabulary, context);
///     Weights weights{mesh, make_moe(moe, config), recipe};
#pragma once

#include <dsx/core/flag.hpp>
#include <dsx/models/mixtral.hpp>
#include <dsx/nn/metered.hpp>

namespace dsx {

struct MoeOptions {
  Extent layers = 6, width = 256, heads = 8, key_value_heads = 0, hidden = 0;  // 0: as many as heads; twice the width
  std::string router = "dropless";
  Extent experts = 8, top_k = 2, shared_experts = 0;
  double capacity_factor = 0, balance_loss = 0.01, z_loss = 1e-3, dropout = 0;

  bool dense() const { return router == "dense"; }
  Extent routed() const { return dense() ? 1 : experts; }
  Extent choices() const { return dense() ? 1 : top_k; }
};

void each_flag(MoeOptions& o, auto&& flag) {
  flag({"Model", "--layers", "blocks", 1}, o.layers);
  flag({"Model", "--width", "channels of the residual stream", 1}, o.width);
  flag({"Model", "--heads", "heads of attention", 1}, o.heads);
  flag({"Model", "--key-value-heads", "heads of keys and values, each for equally many of attention; 0: one each"}, o.key_value_heads);
  flag({"Model", "--hidden", "channels within an expert; 0: twice the width"}, o.hidden);
  flag({"Model", "--dropout", "rate: of attention's probabilities and what joins the stream", 0, 0.99}, o.dropout);
  flag({.group = "Experts", .name = "--router", .text = "who chooses: dense is one layer for all tokens", .choices = {"topk", "dropless", "dense"}},
       o.router);
  flag({"Experts", "--experts", "in each layer; not of a dense one", 1}, o.experts);
  flag({"Experts", "--top-k", "experts of a token; not of a dense layer", 1, 64}, o.top_k);
  flag({"Experts", "--capacity-factor", "seats of an expert over an even share, beyond which tokens are dropped; 0: no limit (dropless)", 0},
       o.capacity_factor);
  flag({"Experts", "--shared-experts", "width, in experts, of a layer that every token passes beside its own"}, o.shared_experts);
  flag({"Experts", "--balance-loss", "weight of each layer's balance loss, by sequence", 0}, o.balance_loss);
  flag({"Experts", "--z-loss", "weight of each router's z-loss", 0}, o.z_loss);
}

/// dsx-E346 where a limit is given to who knows none, or none to who needs one.
inline AnyRouter router_of(const MoeOptions& o, Extent width) {
  const bool limited = o.capacity_factor > 0;
  if (limited != (o.router == "topk"))
    fail<346>("a capacity factor of ", o.capacity_factor, " for the router ", o.router, "; topk takes one above 0, dropless and dense take none");
  if (o.dense()) return {.width = width};
  const TokenChoice choice{.choices = o.top_k,
                           .capacity = limited ? Capacity{o.capacity_factor, 4} : Capacity{},
                           .renormalised = o.top_k > 1,
                           .balance = {.weight = o.balance_loss, .by_sequence = true},
                           .z_loss = o.z_loss};
  return {.width = width, .experts = o.experts, .choice = choice};
}

/// A layer that all tokens pass, if there is one, beside experts.
struct MoeMlp {
  std::optional<SwigluMlp> shared;
  Experts<Metered<AnyRouter>, SwigluMlp> routed;
  void parts(auto& visit) const {
    if (shared) visit("shared", *shared);
    routed.parts(visit);
  }
  Value<Common> operator()(Value<Common> x_RC) const {
    const Value<Common> y_RC = routed(x_RC);
    return shared ? (*shared)(x_RC) + y_RC : y_RC;
  }
};

/// `end`: the token that begins and ends a text.
inline LlamaConfig config_of(const MoeOptions& o, Extent vocabulary, Extent context, std::optional<int> end = {}) {
  const GroupedHeads heads = GroupedHeads{o.width, o.heads, o.key_value_heads}.checked();
  LlamaConfig c{.family = LlamaConfig::Family::mixtral,
                .vocab_size = vocabulary,
                .max_position_embeddings = context,
                .hidden_size = o.width,
                .intermediate_size = o.hidden ? o.hidden : 2 * o.width,
                .num_hidden_layers = o.layers,
                .num_attention_heads = o.heads,
                .num_key_value_heads = heads.key_value,
                .head_dim = heads.dim,
                .num_local_experts = o.routed(),
                .num_experts_per_tok = o.choices(),
                .router_aux_loss_coef = o.balance_loss};
  if (end) c.bos_token_id = Extent(*end), c.eos_token_ids = {Extent(*end)};
  return c;
}

/// Sizes are the config's, which may come from a folder; the router with its experts and losses, and shared experts, the options'.
inline auto make_moe(const MoeOptions& o, const LlamaConfig& config) {
  const Extent width = config.hidden_size, hidden = config.intermediate_size;
  MoeMlp mlp{{}, Experts{o.routed(), Metered{router_of(o, width)}, SwigluMlp{width, hidden}}};
  if (o.shared_experts > 0) mlp.shared.emplace(width, o.shared_experts * hidden);
  LlamaShape shape = shape_of(config);
  shape.attention_dropout = o.dropout;
  auto block = llama_block<UnbiasedColumns>(shape, mlp);
  block.dropout_rate = o.dropout;
  return LlamaOf<UnbiasedColumns, MoeMlp>{Named{"embedding", llama_begin(shape)}, Named{"blocks", Repeat{shape.layers, block}},
                                          Named{"final", llama_end(shape)}};
}

/// dsx-E331 if Hugging Face's Mixtral computes something else.
inline void check_export(const MoeOptions& o) {
  if (o.shared_experts > 0) fail<331>("a Mixtral has no shared experts; this model's are ", o.shared_experts, " wide");
  if (o.dense()) fail<331>("a Mixtral's layers have a router; this model's are dense");
  if (o.top_k == 1) fail<331>("a Mixtral weighs the only expert of a token with 1; this model weighs it with its probability");
}

}  // namespace dsx
