// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Each token goes to the k experts that its router finds most probable, however many others do (Gale et al. 2022).
///
///     Dropless<2> router{.width = 768, .experts = 8, .balance = {.weight = 0.01, .by_sequence = true}, .z_loss = 1e-3};
///
/// Plans hold k rows of experts for each token, of all ranks that share out the experts; products run on those that there are, expert by expert.
/// Where that is too much memory, `room` bounds it, and a step in which more rows come than fit ends with dsx-E350.
#pragma once

#include <dsx/ops/route.hpp>

namespace dsx {

template <Extent k>
struct Dropless {
  static_assert(k >= 1 && k <= kernels::most_choices);
  Extent width = 0, experts = 0;
  bool renormalised = k > 1;
  Balance balance{};
  double z_loss = 0;
  double room = 0;  // among experts of a rank that share a mesh axis, in even shares of all rows; 0: for all that may come
  Parameter gate{{width, experts}, {0, 0.02F}};

  void parts(auto& visit) const { visit("gate", gate); }
  Routes operator()(Value<Common> x_RC) const {
    Routes routes = TokenChoice{k, {}, Drop::by_position, renormalised, balance, z_loss}(x_RC, gate);
    routes.room = room;
    return routes;
  }
};
static_assert(ExpertRouter<Dropless<2>>);

}  // namespace dsx

// dsx-policy: router dropless Dropless<2>{.width = width, .experts = 4, .balance = {.weight = 0.1, .by_sequence = true}, .z_loss = 1e-2}
