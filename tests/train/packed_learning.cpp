// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// cores: 2
/// A small GPT-2 learns this repository's license, letter by letter, as well where its weights, gradients or moments are packed.
#include <dsx/dsx.hpp>
#include <dsx/io/atomic_file.hpp>
#include <dsx/recipes.hpp>
#include <dsx/train/schedule.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

constexpr Extent letters = 96, context = 32, sequences = 8, steps = 200, ranks = 4;  // sequences: of a rank

/// Printable characters of a text that doesn't change; every other one is the last of them.
std::vector<int> license() {
  std::vector<int> ids;
  for (const char c : read_file(DSX_SOURCE_DIR "/LICENSE")) ids.push_back(c >= ' ' && c <= '~' ? c - ' ' : letters - 1);
  return ids;
}

/// Sequences at places that follow from the step and the rank.
MicroBatch batch_of(std::span<const int> text, Extent step, Extent rank) {
  MicroBatch batch;
  for (Extent s = 0; s < sequences; ++s) {
    const float u = uniform({.seed = 5, .step = std::uint32_t(step)}, rank * sequences + s, 0);
    const auto part = text.subspan(Extent(u * float(text.size() - context - 1)), context + 1);
    batch.add(part.first(context), part.last(context), (rank * sequences + s) * context);
  }
  return batch;
}

/// The loss on other sequences after learning.
double learnt(std::span<const int> text, const char* recipe) {
  double loss = 0;
  launch_threads(ranks, [&](Session& session) {
    const Mesh mesh{session, {.data = ranks, .inner = 2}};
    const auto model = make_gpt2({.vocabulary = letters, .positions = context, .width = 48, .heads = 4, .layers = 2});
    Weights weights{mesh, model, choose_recipe(recipe)};
    const Extent rank = mesh.coordinate(Axes::data);
    {
      const CosineRate rate{.rate = 2e-3, .least = 1e-4, .warmup = steps / 10, .steps = steps};
      Trainer trainer{weights, AdamW{}, TokenLoss{}, {.rows = sequences * context, .clip = 1}};
      for (Extent step = 0; step < steps; ++step) {
        trainer.optimizer().rate = rate.at(step);
        const MicroBatch batch = batch_of(text, step, rank);
        trainer.step({&batch, 1});
      }
    }
    std::vector<MicroBatch> others;
    for (Extent i = 0; i < 32; ++i) others.push_back(batch_of(text, steps + i, rank));
    const double here = Evaluator{weights, TokenLoss{}, sequences * context}.loss(others);
    if (session.is_root()) loss = here;
  });
  return loss;
}

}  // namespace

TEST_CASE("after 200 steps with packed weights, gradients or moments the loss is within one percent of full precision's") {
  const std::vector<int> text = license();
  REQUIRE(text.size() > 10'000);
  const double exact = learnt(text, "zero3");
  CHECK(exact < 2.8);  // a uniform guess costs 4.6, the frequencies of letters some 3.2
  for (const std::string& recipe : std::vector<std::string>{"hpz+qwz", "zero3+qgz", "zero3+qgz_int4", "hpz+zeropp", "zero1+adam8bit"}) {
    const double packed = learnt(text, recipe.c_str());
    MESSAGE(recipe << " " << packed << ", full precision " << exact);
    CHECK_MESSAGE(std::abs(packed / exact - 1) <= 0.01, recipe);
  }
}
