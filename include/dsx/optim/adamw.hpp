// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// AdamW (Loshchilov & Hutter 2019); its grain is an element.
///
///     Trainer trainer{weights, AdamW{.rate = 3e-4}, TokenLoss{}, options};
#pragma once

#include <dsx/optim/optimizer.hpp>

#include <cmath>

namespace dsx {

struct AdamW {
  double rate = 1e-3, beta_1 = 0.9, beta_2 = 0.95, epsilon = 1e-8, decay = 0.1;

  std::vector<StateSpec> states(const ParameterInfo&) const { return {{"first_moment"}, {"second_moment", true}}; }
  void update(Bundle& b, const Verdict& v, const Mesh& mesh) const {
    const kernels::AdamWStep step{.rate = rate,
                                  .beta_1 = beta_1,
                                  .beta_2 = beta_2,
                                  .epsilon = epsilon,
                                  .decay = decay_of(decay, b.kind.role),
                                  .scale = v.scale,
                                  .correction_1 = 1 - std::pow(beta_1, double(v.step)),
                                  .correction_2 = 1 - std::pow(beta_2, double(v.step))};
    mesh.session().launch(kernels::adamw, step, b.master(), b.reduced, b.states[0], b.states[1], b.weight_of_state());
  }
};
static_assert(Optimizer<AdamW>);

}  // namespace dsx

// dsx-policy: optimizer adamw AdamW{.rate = 3e-3, .epsilon = 1e-4}
