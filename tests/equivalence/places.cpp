// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// BYTES of plans over places: a dry session over GPUs needs none, and plans what one over CPUs plans, but for how buffers are aligned.
// labels: bytes
#include <dsx/dsx.hpp>
#include <dsx/recipes.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

struct Plan {
  Memory::Peaks bytes{};
  std::array<Extent, categories> kept{};  // weights, gradients and state by their elements and the place's alignment
  double flops = 0, wire = 0;
};

Plan plan_at(Place place, const Gpt2Shape& shape, Degrees degrees, std::string_view recipe, Extent rows) {
  Session session = Session::dry(0, degrees.ranks(), place);
  CHECK(session.place() == place);
  CHECK(session.dry_twin().place() == place);
  CHECK(session.compute().place() == Place::cpu);
  const Mesh mesh{session, degrees};
  Weights weights{mesh, make_gpt2(shape), choose_recipe(recipe)};
  session.traffic.clear();
  Trainer trainer{weights, AdamW{}, TokenLoss{.chunk = 256}, {.micro_batches = 2, .rows = rows, .clip = 1}};
  Plan plan{.bytes = session.memory.peaks(), .flops = trainer.flops()};
  for (const Verb v : {Verb::all_reduce, Verb::all_gather, Verb::reduce_scatter, Verb::send}) plan.wire += session.traffic.wire_bytes(v);
  const auto keep = [&](Category c, const View& v) {
    CHECK(v.place == place);
    plan.kept[Extent(c)] += round_up(v.bytes(), alignment_at(place));
  };
  for (const Bundle& b : weights.bundles().all()) {
    keep(Category::weights, b.rest);
    for (const View& state : b.states) keep(Category::state, state);
    if (b.own_master.size()) keep(Category::state, b.own_master);
    if (b.gradient_part.size()) keep(Category::gradients, b.gradient_part);
    if (b.keeps_gradient()) keep(Category::gradients, b.gradient);
  }
  return plan;
}

constexpr std::string_view recipes[] = {"1f1b", "zero3+1f1b+bf16", "zero1+1f1b+recompute"};

}  // namespace

TEST_CASE("a dry session over GPUs plans GPT-2's bytes of the CPU, category by category, where buffers fill their alignment") {
  // Each extent divides by 512, so that what four ranks share of it in bf16 is a multiple of 256 bytes.
  const Gpt2Shape shape{.vocabulary = 2'048, .positions = 512, .width = 512, .heads = 4, .layers = 2, .dropout = 0.1};
  for (const std::string_view recipe : recipes)
    for (const Degrees& degrees :
         {Degrees{}, Degrees{.data = 2}, Degrees{.data = 2, .tensor = 2, .token_split = true}, Degrees{.data = 2, .pipe = 2}}) {
      const Plan cpu = plan_at(Place::cpu, shape, degrees, recipe, 512), gpu = plan_at(Place::cuda, shape, degrees, recipe, 512);
      for (Extent c = 0; c < categories; ++c) {
        CAPTURE(category_names[c]);
        if (c != Extent(Category::scratch)) CHECK(gpu.bytes[c] == cpu.bytes[c]);
      }
      // On top of the scratch lies the packing space of a matrix product, in which one buffer may end within an alignment.
      const Extent scratch = cpu.bytes[Extent(Category::scratch)];
      CHECK(gpu.bytes[Extent(Category::scratch)] >= scratch);
      CHECK(gpu.bytes[Extent(Category::scratch)] < scratch + alignment_at(Place::cuda));
      CHECK(cpu.bytes[Extent(Category::saved)] > 0);
      CHECK(gpu.flops == cpu.flops);
      CHECK(gpu.wire == cpu.wire);
    }
}

TEST_CASE("a dry session over GPUs pads every buffer to what a GPU aligns to") {
  const Gpt2Shape odd{.vocabulary = 501, .positions = 33, .width = 36, .heads = 3, .layers = 2};
  for (const std::string_view recipe : recipes)
    for (const Degrees& degrees : {Degrees{}, Degrees{.data = 2, .tensor = 2}}) {
      const Plan cpu = plan_at(Place::cpu, odd, degrees, recipe, 33), gpu = plan_at(Place::cuda, odd, degrees, recipe, 33);
      for (const Category c : {Category::weights, Category::gradients, Category::state}) {
        CAPTURE(category_names[Extent(c)]);
        CHECK(cpu.bytes[Extent(c)] == cpu.kept[Extent(c)]);
        CHECK(gpu.bytes[Extent(c)] == gpu.kept[Extent(c)]);
      }
      for (Extent c = 0; c < categories; ++c) {
        CHECK(gpu.bytes[c] % alignment_at(Place::cuda) == 0);
        CHECK(gpu.bytes[c] >= cpu.bytes[c]);
      }
      CHECK(gpu.bytes[Extent(Category::saved)] > cpu.bytes[Extent(Category::saved)]);
      CHECK(gpu.flops == cpu.flops);
    }
}
