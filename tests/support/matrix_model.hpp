// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The toy GPT-2 whose blocks have experts behind any router, and a setup of the matrix as a cell of runs.hpp.
///
///     toy::train(cell_of(setup), setup.recipe(), toy::steps, learner_of(setup));
#pragma once

#include "matrix.hpp"
#include "runs.hpp"

namespace matrix {

using toy::Cell, toy::Learner, toy::Run;

/// A layer as it is, or several of it. Behind Dense that is the toy's own model, for which there are formulas.
struct FeedForward {
  std::variant<Experts<Dense, Mlp>, Experts<ListedRouter, Mlp>> chosen;
  void parts(auto& visit) const {
    std::visit([&](const auto& e) { e.parts(visit); }, chosen);
  }
  Value<Common> operator()(Value<Common> x_RC) const {
    return std::visit([&](const auto& e) { return e(x_RC); }, chosen);
  }
};
using MatrixBlock = PreNormBlock<LayerNorm, CausalAttention, FeedForward>;
using MatrixModel = Sequential<Named<Embedding>, Named<Repeat<MatrixBlock>>, Named<Chain<Named<toy::Spare>, Named<LayerNorm>, Named<Head>>>>;

inline MatrixModel make_model(const ListedRouter& router) {
  using namespace toy;
  static_assert(matrix::width == toy::width);
  constexpr double rate = 0.1;
  const LayerNorm norm{toy::width};
  const Mlp mlp{toy::width, hidden};
  const FeedForward feed =
      router.dense() ? FeedForward{Experts<Dense, Mlp>{1, Dense{}, mlp}} : FeedForward{Experts<ListedRouter, Mlp>{router.experts(), router, mlp}};
  const MatrixBlock block{norm, CausalAttention{toy::width, heads, default_deviation, rate}, norm, feed, rate};
  return MatrixModel{Named{"embedding", Embedding{vocabulary, length, toy::width, rate, "token_table"}}, Named{"blocks", Repeat{blocks, block}},
                     Named{"final", Chain{Named{"spare", Spare{}}, Named{"norm", norm}, Named{"head", Head{vocabulary, toy::width, "token_table"}}}}};
}

/// By the names of the papers; a policy that none of them is has no formulas.
inline std::optional<toy::Sharding> sharding_of(const Setup& s) {
  const PolicyId id = std::get<AnySharding>(s.policies).tag().id;
  const std::pair<PolicyId, toy::Sharding> known[] = {
      {policy_id<Replicate>, toy::Sharding::replicate}, {policy_id<ZeRO<1>>, toy::Sharding::zero_1}, {policy_id<ZeRO<2>>, toy::Sharding::zero_2},
      {policy_id<ZeRO<3>>, toy::Sharding::zero_3},      {policy_id<HpZ>, toy::Sharding::hpz},        {policy_id<MiCS>, toy::Sharding::mics}};
  for (const auto& [policy, sharding] : known)
    if (policy == id) return sharding;
  return {};
}
inline std::optional<toy::Rule> rule_of(const Setup& s) {
  for (const auto& [name, rule] : {std::pair{"sgd", toy::Rule::sgd}, {"adamw", toy::Rule::adamw}, {"muon", toy::Rule::muon}})
    if (s.optimizer_name == name) return rule;
  return {};
}

/// A step is eight micro-batches in the whole world, however many ranks: a router's seats depend on who shares one.
inline Cell cell_of(const Setup& s) {
  const auto& [sharding, schedule, offload, quantizer, precision, recompute, attention, summation] = s.policies;
  Cell c{.sharding = sharding_of(s).value_or(toy::Sharding::replicate),
         .degrees = s.degrees,
         .schedule = schedule.chunks(2) == 2 ? toy::Schedule::interleaved : toy::Schedule::gpipe,
         .micro_batches = toy::sequences / s.degrees.data,
         .recompute = recompute.units(),
         .rule = rule_of(s).value_or(toy::Rule::adamw),
         .elements = precision.elements(),
         .reproducible = summation.fixed_grains()};
  for (Extent kind = 0; kind < kinds; ++kind) c.rests[kind] = offload.rests(Kind(kind), {});
  c.codecs = {quantizer.codec(QuantSite::gather, {}), quantizer.codec(QuantSite::reduction, {}), quantizer.codec(QuantSite::state, {}),
              quantizer.feedback({})};
  return c;
}
inline Learner<MatrixModel> learner_of(const Setup& s) {
  const bool formulas = sharding_of(s) && rule_of(s) && s.router.dense();
  const bool planned_wire = s.router.dense() && s.optimizer.exact_steps() == exact_steps_of(AdamW{});  // 1-bit Adam's first steps are exact
  return {make_model(s.router), s.optimizer, formulas, planned_wire};
}

}  // namespace matrix
