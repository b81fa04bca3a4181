// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// An evaluation of several micro-batches through pipeline stages: nothing of one stays behind for the next.
#include <dsx/dsx.hpp>

#include <doctest/doctest.h>

namespace {

using namespace dsx;

double loss_on(Extent stages, std::array<Extent, categories>* left = nullptr) {
  double loss = 0;
  launch_threads(stages, [&](Session& session) {
    const Mesh mesh{session, {.pipe = stages}};
    const AnyRecipe recipe{AnySharding{}, stages > 1 ? AnySchedule{OneForwardOneBackward{}} : AnySchedule{}, AnyOffload{}, AnyPrecision{Fp64{}},
                           AnyRecompute{}};
    Weights weights{mesh, make_gpt2({.vocabulary = 23, .positions = 8, .width = 16, .heads = 2, .layers = 3, .dropout = 0.2}), recipe};
    Evaluator evaluator{weights, TokenLoss{}, 16};
    std::vector<MicroBatch> batches(4);
    for (Extent b = 0; b < batches.size(); ++b)
      for (Extent s = 0; s < 2; ++s) {
        std::vector<int> ids(8 - s), targets(8 - s);
        for (Extent t = 0; t < ids.size(); ++t) ids[t] = int(5 * b + 3 * s + 2 * t) % 23, targets[t] = (ids[t] + 1) % 23;
        batches[b].add(ids, targets, (2 * b + s) * 8);
      }
    const double mine = evaluator.loss(batches);
    CHECK(evaluator.loss(batches) == mine);
    if (session.is_root()) loss = mine;
    if (left && session.is_root())
      for (const Category c : {Category::saved, Category::carried, Category::scratch, Category::gathered})
        (*left)[Extent(c)] = session.memory.tally(c).now;
  });
  return loss;
}

}  // namespace

TEST_CASE("an evaluation of several micro-batches in a pipeline equals one rank's and leaves no memory taken") {
  std::array<Extent, categories> left{};
  const double one = loss_on(1), two = loss_on(2, &left);
  CHECK(std::abs(one - two) < 1e-13);
  CHECK(loss_on(3) == doctest::Approx(one).epsilon(1e-13));
  for (const Extent bytes : left) CHECK(bytes == 0);
}
