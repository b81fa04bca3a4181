// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Sums by grains on MPI processes, whose sums promise no order: the bits of one rank, with BYTES and WIRE.
// labels: traj
// processes: 2 4
// timeout: 300
#include "support/runs.hpp"

#include <doctest/doctest.h>

using namespace toy;

namespace {

constexpr Elements f32{}, mixed{Element::bf16, Element::bf16, Element::f32};

/// MPI can be entered once a process: the world lives until the program ends.
std::shared_ptr<Transport> world() {
  static const auto only = mpi_transport_world({.time_limit = std::chrono::seconds{60}});
  return only;
}

void equals(const Run& one, Cell c) {
  c.reproducible = true;
  Session session{checked(world())};
  Run run;
  Complaints complaints;
  train_rank(session, c, recipe_of(c), 6, run, complaints, nullptr, learner_of(c));
  const auto wrong = complaints.take();
  CHECK_MESSAGE(wrong.empty(), name_of(c) << text_of(wrong));
  if (session.is_root()) CHECK_MESSAGE(same(run, one), name_of(c));
}
Run on_threads(Cell c) {
  c.reproducible = true;
  return train(c, recipe_of(c), 6);
}

}  // namespace

TEST_CASE("MPI processes that sum by grains have the bits of one rank under every sharding policy") {
  const Extent n = world()->size();
  for (const Elements& elements : {f32, mixed})
    for (const Rule rule : {Rule::adamw, Rule::muon}) {
      const Run one = on_threads({.micro_batches = 8, .rule = rule, .elements = elements});
      for (const Sharding s : {Sharding::replicate, Sharding::zero_1, Sharding::zero_2, Sharding::zero_3, Sharding::hpz, Sharding::mics}) {
        const bool near = s == Sharding::hpz || s == Sharding::mics;
        equals(one, {s, {.data = n, .inner = near ? 2U : 1U}, Schedule::single, 8 / n, false, rule, elements});
      }
      equals(one, {Sharding::zero_2, {.data = n / 2, .pipe = 2}, Schedule::one_forward_one_backward, 16 / n, true, rule, elements});
      Cell away{Sharding::mics, {.data = n, .inner = 2}, Schedule::single, 8 / n, false, rule, elements};
      away.rests.fill(Tier::host);
      equals(one, away);
    }
}

TEST_CASE("MPI processes that sum by grains have the bits of threads with as many tensor ranks") {
  const Extent n = world()->size();
  for (const bool token_split : {false, true}) {
    const Run one = on_threads({Sharding::replicate, {.tensor = 2, .token_split = token_split}, Schedule::single, 8, false, Rule::adamw, f32});
    equals(one, {Sharding::zero_2, {.data = n / 2, .tensor = 2, .token_split = token_split}, Schedule::single, 16 / n, false, Rule::adamw, f32});
  }
}
