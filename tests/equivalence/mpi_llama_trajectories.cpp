// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// TRAJ of Llama and Mixtral on MPI processes, against one rank, with BYTES and WIRE.
// labels: traj bytes wire
// processes: 2 4
// timeout: 300
#include "support/toy_llama.hpp"

#include <doctest/doctest.h>

using namespace toy;

namespace {

/// MPI can be entered once a process: the world lives until the program ends.
std::shared_ptr<Transport> world() {
  static const auto only = mpi_transport_world({.time_limit = std::chrono::seconds{60}});
  return only;
}

/// Every process compares what the root collected with its own run on one rank.
void equals_one_rank(const Cell& c, const auto& learner_of) {
  Session session{checked(world())};
  Run run;
  Complaints complaints;
  train_rank(session, c, recipe_of(c), steps, run, complaints, nullptr, learner_of(c));
  const auto wrong = complaints.take();
  CHECK_MESSAGE(wrong.empty(), name_of(c) << text_of(wrong));
  if (!session.is_root()) return;
  const Cell single{.rule = c.rule};
  const double off = distance(run, train(single, recipe_of(single), steps, learner_of(single)));
  CHECK_MESSAGE(off <= 1e-12, name_of(c) << " lies " << off << " from one rank");
}

void check_cells(const auto& learner_of) {
  const Extent n = world()->size();
  equals_one_rank({Sharding::zero_3, {.data = n / 2, .tensor = 2, .token_split = true}, Schedule::single, 2, true, Rule::adamw}, learner_of);
  equals_one_rank({Sharding::zero_2, {.data = n / 2, .pipe = 2}, Schedule::one_forward_one_backward, 2, false, Rule::sgd}, learner_of);
}

}  // namespace

TEST_CASE("MPI processes that train a Llama equal one rank") { check_cells(learner_of_llama); }
TEST_CASE("MPI processes that train a Mixtral, and share out its experts, equal one rank") {
  const Extent n = world()->size();
  check_cells(learner_of_mixtral);
  equals_one_rank({Sharding::zero_3, {.data = n, .expert = n}, Schedule::single, 1, true, Rule::adamw}, learner_of_mixtral);
}
