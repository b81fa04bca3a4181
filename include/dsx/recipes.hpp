// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Recipes by name, for command lines: the one table of them.
///
///     AnyRecipe recipe = choose_recipe("zero2+1f1b+bf16");     // dsx-E108 for a name that isn't there
///     std::puts(list_of_recipes().c_str());
///
/// Names of different slots are joined by +: zero3+gpipe+recompute. Some names stand for several at once: small_gpu.
#pragma once

#include <dsx/offload/rest.hpp>
#include <dsx/pipeline/gpipe.hpp>
#include <dsx/pipeline/interleaved.hpp>
#include <dsx/pipeline/one_forward_one_backward.hpp>
#include <dsx/policy/recipe.hpp>
#include <dsx/precision/bf16.hpp>
#include <dsx/quant/quantize.hpp>
#include <dsx/sharding/hpz.hpp>
#include <dsx/sharding/mics.hpp>
#include <dsx/sharding/zero.hpp>

namespace dsx {

/// A policy's name on a command line.
struct RecipeName {
  std::string_view name, text;
  PolicyTag tag;
  void (*choose)(AnyPolicies&);
};
/// The policy is P{fields...}.
template <Policy P, auto... fields>
constexpr RecipeName recipe_name(std::string_view name, std::string_view text) {
  return {name, text, tag_of<P>(), [](AnyPolicies& all) { std::get<typename Identity<typename P::Slot>::any>(all) = P{fields...}; }};
}

inline constexpr RecipeName recipe_names[] = {
    recipe_name<Replicate>("replicate", "plain data parallelism: every rank holds everything"),
    recipe_name<ZeRO<1>>("zero1", "ZeRO-1: the optimizer's state is cut over the data ranks"),
    recipe_name<ZeRO<2>>("zero2", "ZeRO-2: the gradients too"),
    recipe_name<ZeRO<3>>("zero3", "ZeRO-3: the weights too"),
    recipe_name<MiCS>("mics", "MiCS: ZeRO-3 among near ranks (mesh axis inner), copies farther away"),
    recipe_name<HpZ>("hpz", "hpZ: ZeRO-3 whose backward gathers among near ranks"),
    recipe_name<SingleStage>("single", "no pipeline: one stage holds the whole model"),
    recipe_name<GPipe>("gpipe", "GPipe: all micro-batches forward, then all backward"),
    recipe_name<OneForwardOneBackward>("1f1b", "1F1B: a backward as soon as there can be one"),
    recipe_name<Interleaved<2>>("interleaved", "interleaved 1F1B: two chunks a stage, half the bubble"),
    recipe_name<Resident>("resident", "everything rests where kernels run"),
    recipe_name<Rest<OptimizerState>>("host_state", "master weights and moments rest on the host, where the update runs"),
    recipe_name<Rest<Gradients>>("host_gradients", "gradients rest on the host, where micro-batches add up"),
    recipe_name<Rest<OptimizerState, Gradients>>("host_optimizer", "state and gradients rest on the host"),
    recipe_name<Rest<Parameters>>("host_weights", "weights rest on the host and come unit by unit"),
    recipe_name<Rest<Activations>>("host_activations", "what backward reads rests on the host until then"),
    recipe_name<Rest<OptimizerState, Gradients, Parameters, Activations>>("host", "everything rests on the host"),
    recipe_name<Rest<OptimizerState>, Tier::disk>("disk_state", "master weights and moments rest in a file among temporary ones"),
    recipe_name<Rest<Gradients>, Tier::disk>("disk_gradients", "gradients rest in a file, and micro-batches add up there"),
    recipe_name<Rest<Parameters>, Tier::disk>("disk_weights", "weights rest in a file and come unit by unit"),
    recipe_name<Rest<Activations>, Tier::disk>("disk_activations", "what backward reads rests in a file until then"),
    recipe_name<Rest<OptimizerState, Gradients, Parameters, Activations>, Tier::disk>("disk", "everything rests in a file among temporary ones"),
    recipe_name<FullPrecision>("full", "nothing is packed, at rest or on its way"),
    recipe_name<Quantize<At<BlockInt8<256>, QuantSite::gather>>>("qwz", "qwZ: gathered weights travel in 8 bits"),
    recipe_name<Quantize<At<BlockInt8<256>, QuantSite::reduction>>>("qgz", "qgZ: gradients travel to their sums in 8 bits, in two hops"),
    recipe_name<Quantize<At<BlockInt4<32>, QuantSite::reduction>>, true>("qgz_int4", "qgZ in 4 bits; what that loses is added to the next gradient"),
    recipe_name<Quantize<At<BlockInt8<256>, QuantSite::gather>, At<BlockInt4<32>, QuantSite::reduction>>, true>(
        "zeropp", "ZeRO++: weights travel in 8 bits, gradients in 4 (beside hpz)"),
    recipe_name<Quantize<At<BlockInt8<256>, QuantSite::state>>>("adam8bit", "moments rest in 8 bits and are unpacked for their update"),
    recipe_name<Fp32>("fp32", "values, weights and gradients in fp32"),
    recipe_name<Fp64>("fp64", "values, weights and gradients in double: for proofs"),
    recipe_name<Bf16>("bf16", "values and weights in bfloat16, master weights and gradients in fp32"),
    recipe_name<KeepActivations>("keep", "what backward reads is kept"),
    recipe_name<RecomputeUnits>("recompute", "units are played again in backward instead of being kept"),
    recipe_name<RecomputeOperations>("selective", "norms and elementwise functions are computed again in backward instead of being kept"),
    recipe_name<LocalAttention>("local", "each rank attends to whole sequences"),
    recipe_name<Fast>("fast", "sums are taken as the layout gives them"),
    recipe_name<Reproducible>("reproducible", "sums are taken by grains: the same bits on any data ranks x micro-batches"),
};

/// A name for policies of several slots that serve one purpose.
struct RecipeBlend {
  std::string_view name, text, names;
};
inline constexpr RecipeBlend recipe_blends[] = {
    {"small_gpu", "more state than the device holds: it rests on the host with the gradients, and activations are few",
     "zero2+single+host_optimizer+bf16+selective"},
    {"large_model", "more weights than the near ranks hold: stages, and all that a stage has cut over its data ranks",
     "zero3+1f1b+host_state+bf16+recompute"},
    {"long_context", "more activations than the device holds: what units keep rests on the host", "zero3+single+host_activations+bf16+recompute"},
    {"slow_network", "ranks that are far apart: weights are gathered among near ones, stages exchange little",
     "hpz+interleaved+resident+bf16+selective"},
    {"out_of_core", "more than memory holds: everything rests in files", "zero3+single+disk+bf16+recompute"},
};

/// One line a name.
std::string list_of_recipes();

/// The names in `text`, joined by +, each blend by its own.
std::vector<std::string_view> recipe_words(std::string_view text);

/// Their policies; "" is every slot's identity. `stages` > 1 without a schedule is 1F1B. dsx-E108 for an unknown
/// name, dsx-E102 for two of one slot, dsx-E107 for two that exclude each other. A program with policies of its own gives its table.
AnyRecipe choose_recipe(std::string_view text, Extent stages = 1, std::span<const RecipeName> table = recipe_names);

/// What one rank needs for a step: the most bytes at once in each tier, and what it moves.
struct StepCost {
  std::array<double, 3> peak{};  // by tier
  double wire = 0;
};
/// A line for each name of a recipe that changes it: what `plan` of the recipe says more or less than of the same without that name. A name
/// without which there is no such recipe is left out.
std::string costs_by_name(std::string_view recipe, const std::function<StepCost(std::string_view)>& plan);

}  // namespace dsx
