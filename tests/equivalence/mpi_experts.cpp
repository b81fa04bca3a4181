// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// TRAJ on MPI processes that share out experts, against one rank.
// labels: traj
// processes: 2 4
#include "support/expert_axis.hpp"

#include <doctest/doctest.h>

using namespace dsx;
using test::Layout;
using test::ShortRun;
using test::width;

TEST_CASE("MPI processes that share out experts learn what one rank learns") {
  const auto model = test::mixture(Dropless<2>{.width = width, .experts = 4, .balance = {.weight = 0.5, .by_sequence = true}, .z_loss = 0.1});
  Session session{checked(mpi_transport_world({.time_limit = std::chrono::seconds{60}}))};
  std::vector<Layout> layouts;
  if (session.ranks() == 2) {
    layouts = {{.degrees = {.data = 2, .expert = 2}}, {.degrees = {.data = 2, .expert = 2}, .sharding = ZeRO<2>{}, .recompute = RecomputeUnits{}}};
  } else {
    layouts = {{.degrees = {.data = 4, .expert = 2}, .sharding = ZeRO<3>{}},
               {.degrees = {.data = 4, .expert = 4}, .sharding = ZeRO<1>{}},
               {.degrees = {.data = 2, .tensor = 2, .expert = 2, .token_split = true}},
               {.degrees = {.data = 2, .pipe = 2, .expert = 2}, .sharding = ZeRO<2>{}}};
  }
  const ShortRun one = test::short_run(model, {});
  for (const Layout& layout : layouts) {
    INFO(test::text_of(layout));
    ShortRun many;
    test::run_rank(session, model, layout, 3, test::usual_optimizer, test::usual_feed, many);
    if (session.is_root()) CHECK(distance(many, one) <= 1e-12);
  }
}
