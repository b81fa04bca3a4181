// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The seam for other sums of gradients than the communicators' own, and what such a sum carries from step to step.
///
///     struct Doubtful : Reduction {                                         // a user's own, or an optimizer's
///       void reduce(const View& gradient) override { ranks.all_reduce(gradient).wait(); }
///     };
///     bundle.whole_sum = std::make_unique<Doubtful>();                      // over the axes that don't cut the optimizer's state
#pragma once

#include <dsx/comm/mesh.hpp>

#include <vector>

namespace dsx {

/// What a rank owes: what packing took from its gradients so far, to be added to the next one. It lies in a tier, as gradients do.
struct Owed {
  const char* name;
  View view{};
};

class Reduction {
 public:
  virtual ~Reduction() = default;
  /// `gradient` holds this rank's term, and then the sum, bit for bit the same on all ranks. What it takes from scratch it gives back.
  virtual void reduce(const View& gradient) = 0;
  /// Part of a checkpoint, of a rank and a layout; zeros in the beginning and after a step that was given up.
  virtual std::vector<Owed> owed() const { return {}; }
};

}  // namespace dsx
