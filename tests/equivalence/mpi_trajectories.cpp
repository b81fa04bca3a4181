// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// TRAJ on MPI processes: a core of the cells of trajectories.cpp, against one rank, with BYTES and WIRE.
// labels: traj
// processes: 2 4
// timeout: 300
#include "support/runs.hpp"

#include <dsx/train/checkpoint.hpp>

#include <doctest/doctest.h>

#include <unistd.h>

using namespace toy;

namespace {

/// MPI can be entered once a process: the world lives until the program ends.
std::shared_ptr<Transport> world() {
  static const auto only = mpi_transport_world({.time_limit = std::chrono::seconds{60}});
  return only;
}

/// Every process compares what the root collected with its own run on one rank.
void equals_one_rank(Cell c) {
  Session session{checked(world())};
  Run run;
  Complaints complaints;
  train_rank(session, c, recipe_of(c), steps, run, complaints, nullptr, learner_of(c));
  const auto wrong = complaints.take();
  CHECK_MESSAGE(wrong.empty(), name_of(c) << text_of(wrong));
  if (!session.is_root()) return;
  const double off = distance(run, train({.rule = c.rule, .elements = c.elements}));
  CHECK_MESSAGE(off <= 1e-12, name_of(c) << " lies " << off << " from one rank");
}

}  // namespace

TEST_CASE("MPI processes on every axis equal one rank") {
  const Extent n = world()->size();
  for (const Sharding s : {Sharding::replicate, Sharding::zero_1, Sharding::zero_2, Sharding::zero_3})
    for (const bool token_split : {false, true}) {
      equals_one_rank({s, {.data = n}, Schedule::single, 2, false, token_split ? Rule::adamw : Rule::sgd});
      equals_one_rank({s, {.data = n / 2, .tensor = 2, .token_split = token_split}, Schedule::single, 2, token_split, Rule::adamw});
      if (n == 4)
        equals_one_rank({s,
                         {.tensor = 2, .pipe = 2, .token_split = token_split},
                         token_split ? Schedule::gpipe : Schedule::one_forward_one_backward,
                         2,
                         false,
                         Rule::sgd});
    }
}

TEST_CASE("MPI processes in a pipeline, near and far, and with Muon equal one rank") {
  const Extent n = world()->size();
  equals_one_rank({Sharding::zero_1, {.data = n / 2, .pipe = 2}, Schedule::one_forward_one_backward, 2, true, Rule::muon});
  equals_one_rank({Sharding::mics, {.data = n, .inner = 2}, Schedule::single, 2, false, Rule::muon});
  equals_one_rank({Sharding::hpz, {.data = n, .inner = 2}, Schedule::single, 2, false, Rule::adamw});
}

TEST_CASE("MPI processes that pack weights, gradients and state equal threads, and what they owe comes back from a checkpoint") {
  const Extent n = world()->size();
  for (Cell c : {Cell{Sharding::zero_3, {.data = n, .inner = 2}, Schedule::single, 2, false, Rule::adamw},
                 Cell{Sharding::mics, {.data = n, .inner = 2}, Schedule::single, 1, false, Rule::sgd},
                 Cell{Sharding::zero_1, {.data = n / 2, .pipe = 2}, Schedule::one_forward_one_backward, 2, false, Rule::adamw}}) {
    c.codecs = {&block_int8<16>, &block_int4<32>, &block_int8<32>, true};
    Session session{checked(world())};
    Run run;
    Complaints complaints;
    train_rank(session, c, recipe_of(c), 6, run, complaints, nullptr, learner_of(c));
    const auto wrong = complaints.take();
    CHECK_MESSAGE(wrong.empty(), name_of(c) << text_of(wrong));

    const Mesh mesh{session, c.degrees};
    const auto folder = std::filesystem::temp_directory_path() / concat("dsx_packed_", n, "_", getppid());
    const auto owed_of = [](auto& weights) {
      std::vector<double> all;
      weights.bundles().each_owed([&](const std::string&, const View& v) { all.insert(all.end(), v.as<double>().begin(), v.as<double>().end()); });
      return all;
    };
    std::vector<double> owed;
    {
      Weights weights{mesh, make_model(), recipe_of(c)};
      Trainer trainer{weights, optimizer_of(c.rule), TokenLoss{.chunk = 10}, options_of(c)};
      for (Extent step = 0; step < 2; ++step) trainer.step(c.feed()(step, mesh.coordinate(Axes::data)));
      save(folder, trainer);
      owed = owed_of(weights);
    }
    Weights weights{mesh, make_model(), recipe_of(c)};
    Trainer trainer{weights, optimizer_of(c.rule), TokenLoss{.chunk = 10}, options_of(c)};
    (void)load(folder, trainer);
    CHECK_MESSAGE(owed_of(weights) == owed, name_of(c));
    mesh.world().barrier();
    if (!session.is_root()) continue;
    std::filesystem::remove_all(folder);
    const double off = distance(run, train(c, recipe_of(c), 6));
    CHECK_MESSAGE(off <= 1e-10, name_of(c) << " lies " << off << " from threads");
  }
}

TEST_CASE("MPI processes whose memory rests on the host or in files equal one rank") {
  const Extent n = world()->size();
  for (const Tier tier : {Tier::host, Tier::disk})
    for (Cell c : {Cell{Sharding::zero_2, {.data = n}, Schedule::single, 2, true, Rule::adamw},
                   Cell{Sharding::zero_3, {.data = n / 2, .pipe = 2}, Schedule::one_forward_one_backward, 2, false, Rule::muon}}) {
      c.rests.fill(tier);
      equals_one_rank(c);
    }
}
