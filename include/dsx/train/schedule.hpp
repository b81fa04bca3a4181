// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The learning rate by step: linear warm-up, then half a cosine down to its end.
///
///     const CosineRate rate{.rate = 1e-3, .least = 1e-4, .warmup = 100, .steps = 1000};
///     trainer.optimizer().rate = rate.at(trainer.steps());
#pragma once

#include <dsx/core/shape.hpp>

#include <cmath>
#include <numbers>

namespace dsx {

struct CosineRate {
  double rate = 1e-3, least = 0;
  Extent warmup = 0;  // steps; step 0 already has rate / warmup
  Extent steps = 1;   // at which `least` is reached

  /// Of the step with `done` steps before it.
  double at(Extent done) const {
    if (done < warmup) return rate * double(done + 1) / double(warmup);
    if (steps <= warmup) return rate;
    const double way = std::min(1.0, double(done - warmup) / double(steps - warmup));
    return least + (rate - least) * (1 + std::cos(std::numbers::pi * way)) / 2;
  }
};

}  // namespace dsx
