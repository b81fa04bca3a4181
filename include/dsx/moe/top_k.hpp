// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Each token goes to the k experts that its router finds most probable, as long as they have room.
///
///     TopK<2> router{.width = 768, .experts = 8, .capacity_factor = 1.25, .drop = Drop::by_choice, .balance = {.weight = 0.01}};
///     TopK<1> as_in_switch{.width = 768, .experts = 64, .balance = {.weight = 0.01}};     // weights: the probability itself
///
/// An expert has max(ceil(rows / experts x k x capacity_factor), least_capacity) seats among a data rank's rows of a micro-batch, on however
/// many ranks experts lie; who finds none is dropped, and its part of the answer is 0. Weights are divided by their sum after drops, unless k
/// is 1.
#pragma once

#include <dsx/ops/route.hpp>

namespace dsx {

template <Extent k>
struct TopK {
  static_assert(k >= 1 && k <= kernels::most_choices);
  Extent width = 0, experts = 0;
  double capacity_factor = 1;
  Extent least_capacity = 4;
  Drop drop = Drop::by_position;
  bool renormalised = k > 1;
  Balance balance{};
  double z_loss = 0;
  Parameter gate{{width, experts}, {0, 0.02F}};

  void parts(auto& visit) const { visit("gate", gate); }
  Routes operator()(Value<Common> x_RC) const {
    if (!(capacity_factor > 0) || !std::isfinite(capacity_factor))
      fail<346>("a capacity factor of ", capacity_factor, " gives ", experts, " experts no seat; Dropless<", k, "> drops no token");
    return TokenChoice{k, {capacity_factor, least_capacity}, drop, renormalised, balance, z_loss}(x_RC, gate);
  }
};
static_assert(ExpertRouter<TopK<2>>);

}  // namespace dsx

// dsx-policy: router topk TopK<2>{.width = width, .experts = 4, .capacity_factor = 0.7, .least_capacity = 1, .balance = {.weight = 0.1}}
