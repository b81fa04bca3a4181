// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What the meters of a model's routers have counted since they were read last.
///
///     record.routing = take_loads(weights);         // none: nothing was routed
#pragma once

#include <dsx/ops/meter_routes.hpp>
#include <dsx/train/metrics.hpp>
#include <dsx/weights/weights.hpp>

namespace dsx {

/// Of the step that has just been made, over all layers: the mean balance and entropy, the extremes of shares, what was dropped. Every rank
/// calls it; counts begin anew.
template <class Weights>
std::optional<RoutingRecord> take_loads(Weights& weights) {
  RoutingRecord all{.least_load = std::numeric_limits<double>::infinity()};
  double layers = 0;
  for (const ParameterRecord& buffer : weights.buffers()) {
    if (!buffer.path.ends_with(".load")) continue;  // of a router's meter
    const std::vector<float> counts = weights.buffer(buffer.path);
    const Load load{counts};
    weights.assign_buffer(buffer.path, std::span<const float>{std::vector<float>(counts.size())});
    if (load.most == 0) continue;
    ++layers;
    all.balance_loss += load.balance, all.load_entropy += load.entropy, all.dropped += load.dropped;
    all.least_load = std::min(all.least_load, load.least), all.most_load = std::max(all.most_load, load.most);
  }
  if (layers == 0) return {};
  all.balance_loss /= layers, all.load_entropy /= layers, all.dropped /= layers;
  return all;
}

}  // namespace dsx
