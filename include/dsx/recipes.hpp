// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Recipes by name, for command lines: the one table of them.
///
///     AnyRecipe recipe = choose_recipe("zero2+1f1b+bf16").recipe();     // dsx-E108 for a name that isn't there
///     std::puts(list_of_recipes().c_str());
///
/// Names of different slots are joined by +: zero3+gpipe+recompute.
#pragma once

#include <dsx/pipeline/gpipe.hpp>
#include <dsx/pipeline/one_forward_one_backward.hpp>
#include <dsx/policy/recipe.hpp>
#include <dsx/precision/bf16.hpp>
#include <dsx/sharding/hpz.hpp>
#include <dsx/sharding/mics.hpp>
#include <dsx/sharding/zero.hpp>

namespace dsx {

/// What the names of a recipe choose; the identity of each slot otherwise.
struct RecipeChoice {
  AnySharding sharding{};
  AnySchedule schedule{};
  AnyPrecision precision{};
  AnyRecompute recompute{};

  AnyRecipe recipe() const { return {sharding, schedule, AnyOffload{}, precision, recompute}; }
};

struct RecipeName {
  std::string_view name, slot, text;
  void (*choose)(RecipeChoice&);
};

inline constexpr RecipeName recipe_names[] = {
    {"replicate", "sharding", "plain data parallelism: every rank holds everything", [](RecipeChoice& c) { c.sharding = Replicate{}; }},
    {"zero1", "sharding", "ZeRO-1: the optimizer's state is cut over the data ranks", [](RecipeChoice& c) { c.sharding = ZeRO<1>{}; }},
    {"zero2", "sharding", "ZeRO-2: the gradients too", [](RecipeChoice& c) { c.sharding = ZeRO<2>{}; }},
    {"zero3", "sharding", "ZeRO-3: the weights too", [](RecipeChoice& c) { c.sharding = ZeRO<3>{}; }},
    {"mics", "sharding", "MiCS: ZeRO-3 among near ranks (mesh axis inner), copies farther away", [](RecipeChoice& c) { c.sharding = MiCS{}; }},
    {"hpz", "sharding", "hpZ: ZeRO-3 whose backward gathers among near ranks", [](RecipeChoice& c) { c.sharding = HpZ{}; }},
    {"gpipe", "schedule", "GPipe: all micro-batches forward, then all backward", [](RecipeChoice& c) { c.schedule = GPipe{}; }},
    {"1f1b", "schedule", "1F1B: a backward as soon as there can be one", [](RecipeChoice& c) { c.schedule = OneForwardOneBackward{}; }},
    {"fp32", "precision", "values, weights and gradients in fp32", [](RecipeChoice& c) { c.precision = Fp32{}; }},
    {"bf16", "precision", "values and weights in bfloat16, master weights and gradients in fp32", [](RecipeChoice& c) { c.precision = Bf16{}; }},
    {"recompute", "recompute", "units are played again in backward instead of being kept", [](RecipeChoice& c) { c.recompute = RecomputeUnits{}; }},
};

/// One line a name.
std::string list_of_recipes();

/// The names in `text`, joined by +; "" chooses nothing. `stages` > 1 without a schedule is 1F1B. dsx-E108 for an unknown name or
/// one without its slot, dsx-E102 for two of one slot.
RecipeChoice choose_recipe(std::string_view text, Extent stages = 1);

}  // namespace dsx
