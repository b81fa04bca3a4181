// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Small models of Llama's kind whose sizes divide by nothing, for runs.hpp: what they are, and what a rank holds of each class of parameters,
/// by hand.
///
///     const toy::Run one = toy::train({}, toy::recipe_of({}), toy::steps, toy::learner_of_llama({}));
#pragma once

#include "runs.hpp"

#include <dsx/models/mixtral.hpp>

namespace toy {

inline constexpr Extent queries = 6, keys = 3, head_dim = 4, experts = 4;

/// Six query heads on three keys over 2 ranks are 4 on 2 and 2 on 1; 21 hidden channels 11 and 10; 29 entries 15 and 14.
inline LlamaShape llama_shape(bool tied) {
  return {.vocabulary = vocabulary,
          .width = width,
          .heads = queries,
          .key_value_heads = keys,
          .head_dim = head_dim,
          .layers = blocks,
          .hidden = hidden,
          .rope = {.base = 100, .scaling = Rope::Scaling::llama3, .factor = 4, .trained = 16, .slow = 1, .fast = 4},
          .tied = tied,
          .attention_dropout = 0.1};
}

/// What a rank's classes are made of.
struct LlamaClasses {
  bool tied = false, biased = false;
  Extent stack = 0;  // experts; 0: none

  std::vector<Class> operator()(const Cell& c, Rank rank) const {
    const auto [tensor, data, stage] = place_of(c.degrees, rank);
    const Extent t = c.degrees.tensor, groups = share({0, keys}, t, tensor).size() * head_dim, inner = share({0, hidden}, t, tensor).size();
    const Extent of_keys = queries / keys, qkv = of_keys + 2, entries = share({0, vocabulary}, t, tensor).size() * width;
    std::vector<Class> all;
    const auto here = [chunks = chunks_of(c, stage)](Extent unit) {
      return std::any_of(chunks.begin(), chunks.end(), [unit](Range r) { return r.contains(unit); });
    };
    const auto add = [&](Class k) {
      if (here(k.units[0])) all.push_back(std::move(k));
    };
    Class table{.elements = entries, .on_two_stages = c.degrees.pipe > 1};
    for (const Extent unit : {Extent{0}, units - 1})
      if (tied && here(unit)) table.units.push_back(unit);
    if (!table.units.empty()) all.push_back(table);
    if (!tied) add({.units = {0}, .elements = entries}), add({.units = {units - 1}, .elements = entries});
    for (Extent b = 1; b <= blocks; ++b) {
      Class cut{.units = {b}, .elements = width * groups * (qkv + of_keys)}, mixed{.units = {b}, .stacked = stack > 0};
      cut.matrices = {width * keys * head_dim * qkv, width * queries * head_dim};
      Class& mlp = stack > 0 ? mixed : cut;  // stacks lie over the expert axis too: a class of their own
      for (Extent e = 0; e < std::max<Extent>(stack, 1); ++e) {
        mlp.elements += 3 * width * inner;
        mlp.matrices.insert(mlp.matrices.end(), {2 * width * hidden, width * hidden});
      }
      add({.units = {b}, .elements = 2 * width, .uncut_use = true});  // two norms
      if (biased) add({.units = {b}, .elements = groups * qkv});
      add(cut);
      if (stack > 0) add(mixed), add({.units = {b}, .elements = width * stack, .matrices = {width * stack}, .whole_matrices = true});
    }
    add({.units = {units - 1}, .elements = width, .uncut_use = true});
    for (Class& k : all) k.padding = round_up(k.elements, c.degrees.data * c.degrees.tensor) - k.elements;
    return all;
  }
};

template <class M>
Learner<M> llama_learner(const Cell& c, M model, std::vector<Class> (*classes)(const Cell&, Rank), const Branches& branches = {}) {
  // What travels among expert ranks is in the routes, which no formula here knows (tests/equivalence/expert_wire.cpp).
  const bool travels = c.degrees.expert > 1;
  return {std::move(model), optimizer_of(c.rule), !travels, !travels, false, classes, branches};
}
inline Learner<Llama> learner_of_llama(const Cell& c) {
  return llama_learner(c, make_llama(llama_shape(false)), [](const Cell& cell, Rank rank) { return LlamaClasses{}(cell, rank); });
}
inline Learner<Qwen2> learner_of_qwen2(const Cell& c) {
  return llama_learner(c, make_qwen2(llama_shape(true)),
                       [](const Cell& cell, Rank rank) { return LlamaClasses{.tied = true, .biased = true}(cell, rank); });
}
/// Its router's losses are by token and by sequence, so that no layout changes them.
inline Learner<Mixtral> learner_of_mixtral(const Cell& c) {
  const Dropless<2> router{.width = width, .experts = experts, .balance = {.weight = 0.05, .by_sequence = true}, .z_loss = 0.01};
  return llama_learner(c, make_mixtral(llama_shape(false), router),
                       [](const Cell& cell, Rank rank) { return LlamaClasses{.stack = experts}(cell, rank); },
                       {.plain = 1, .mixtures = 1, .choices = 2});
}

/// Each needs most mechanisms; `tensor` ranks cut the keys.
inline std::vector<Cell> llama_cells(Rule rule) {
  return {
      {Sharding::replicate, {.tensor = 2}, Schedule::single, 1, false, rule},
      {Sharding::replicate, {.tensor = 3, .token_split = true}, Schedule::single, 2, false, rule},
      {Sharding::zero_1, {.data = 2, .pipe = 2}, Schedule::one_forward_one_backward, 2, false, rule},
      {Sharding::zero_3, {.data = 2, .tensor = 2, .token_split = true}, Schedule::single, 1, true, rule},
      {Sharding::zero_2, {.tensor = 2, .pipe = 2}, Schedule::gpipe, 2, false, rule},
      {Sharding::zero_3, {.data = 2, .tensor = 2, .pipe = 2, .token_split = true}, Schedule::one_forward_one_backward, 2, true, rule},
  };
}

/// Where experts lie on several ranks.
inline std::vector<Cell> expert_cells(Rule rule) {
  return {
      {Sharding::zero_1, {.data = 2, .expert = 2}, Schedule::single, 1, false, rule},
      {Sharding::zero_3, {.data = 4, .expert = 2}, Schedule::single, 1, true, rule},
      {Sharding::zero_2, {.data = 2, .tensor = 2, .expert = 2, .token_split = true}, Schedule::single, 2, false, rule},
      {Sharding::zero_3, {.data = 2, .tensor = 2, .pipe = 2, .expert = 2}, Schedule::one_forward_one_backward, 2, true, rule},
  };
}

}  // namespace toy
