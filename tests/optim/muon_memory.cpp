// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What Muon needs to orthogonalise matrices is planned for the ranks that do it.
// labels: bytes
#include <dsx/dsx.hpp>

#include <doctest/doctest.h>

using namespace dsx;

TEST_CASE("Muon's scratch is planned on the owner of a matrix alone, and the plan is what is taken") {
  constexpr Extent ranks = 8;
  std::array<Extent, ranks> planned{}, taken{};
  const auto scratch_of = [](Session& session) {
    const Mesh mesh{session, {.data = ranks}};
    Weights weights{mesh, Sequential{Named{"e", Embedding{5, 2, 48}}, Named{"m", Residual{Mlp{48, 48}}}, Named{"h", Head{5, 48}}}, Recipe{ZeRO<1>{}}};
    Trainer trainer{weights, Muon{}, TokenLoss{}, {.rows = 2}};
    MicroBatch batch;
    batch.add(std::vector{1, 2}, std::vector{2, 3}, 2 * session.rank());
    if (!session.is_dry()) trainer.step(std::span{&batch, 1});
    return session.memory.tally(Category::scratch).peak;
  };
  launch_threads(ranks, [&](Session& session) {
    taken[session.rank()] = scratch_of(session);
    Session twin = session.dry_twin();
    planned[session.rank()] = scratch_of(twin);
  });
  CHECK(planned == taken);
  CHECK(*std::max_element(taken.begin(), taken.end()) > *std::min_element(taken.begin(), taken.end()));
}
