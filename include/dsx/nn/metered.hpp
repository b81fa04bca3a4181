// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A router that keeps count, over steps, of what tokens wished for and what they got: for people who watch a run.
///
///     Metered router{TopK<2>{.width = 768, .experts = 8}};
///     const std::vector<float> counts = weights.buffer("blocks.0.mlp.router.load");    // Load{counts} says what they mean
///
/// Counts are merged over ranks at each commit; evaluations and what is played again don't count. A float counts to 2^24: set them back to 0
/// (assign_buffer) from time to time.
#pragma once

#include <dsx/ops/meter_routes.hpp>
#include <dsx/policy/expert_router.hpp>

namespace dsx {

template <ExpertRouter Router>
struct Metered {
  Router router;
  Extent width = router.width, experts = router.experts;
  Buffer load{.size = 3 * experts};

  explicit Metered(Router r) : router{std::move(r)} {}
  void parts(auto& visit) const { router.parts(visit), visit("load", load); }
  Routes operator()(Value<Common> x_RC) const {
    Pass& p = *x_RC.pass;
    const Routes routes = router(x_RC);
    const bool counted = !p.mesh().token_split() || p.token_split() || p.tensor().rank() == 0;
    if (routes.probabilities != Routes::none) p.run(MeterRoutes{{}, routes.wanted, routes.counts, routes.probabilities, load.slot, counted});
    return routes;
  }
};

}  // namespace dsx
