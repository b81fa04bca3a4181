// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A core of the matrix's cells on MPI processes: every policy that stands in a cell of so many ranks, in one of them at least.
// labels: traj
// processes: 2 4
// sources: support/matrix_cells.cpp
// needs: dsx_policies
#include "support/matrix.hpp"

#include <dsx/comm/session.hpp>
#include <dsx/comm/transports.hpp>

#include <doctest/doctest.h>

using namespace matrix;

TEST_CASE("a core of all pairs on MPI processes equals one rank") {
  static const auto world = mpi_transport_world({.time_limit = std::chrono::seconds{60}});  // until the program ends
  const Extent ranks = world->size();
  std::set<std::pair<Extent, Extent>> met;
  Extent runs = 0;
  for (const Row& row : whole().cells.rows) {
    const Setup setup = setup_of(row);
    if (setup.degrees.ranks() != ranks) continue;
    bool is_new = false;
    for (Extent slot = 0; slot < row.size(); ++slot) is_new = met.insert({slot, row[slot]}).second || is_new;
    if (!is_new) continue;
    ++runs;
    Session session{checked(world)};
    const std::string wrong = judge(setup, session);
    CHECK_MESSAGE(wrong.empty(), wrong);
  }
  MESSAGE(runs << " cells, " << met.size() << " policies and meshes");
  CHECK(runs > 4);
}
