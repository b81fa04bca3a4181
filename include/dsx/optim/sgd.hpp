// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Stochastic gradient descent with momentum, as PyTorch's; its grain is an element.
///
///     Trainer trainer{weights, Sgd{.rate = 0.1, .momentum = 0.9}, TokenLoss{}, options};
#pragma once

#include <dsx/optim/optimizer.hpp>

namespace dsx {

struct Sgd {
  double rate = 1e-2, momentum = 0, decay = 0;

  std::vector<StateSpec> states(const ParameterInfo&) const {
    if (momentum == 0) return {};
    return {{"momentum"}};
  }
  void update(Bundle& b, const Verdict& v, const Mesh& mesh) const {
    const View velocity = b.states.empty() ? View{} : b.states[0];
    mesh.session().launch(kernels::sgd, kernels::SgdStep{rate, momentum, decay_of(decay, b.kind.role), v.scale}, b.master(), b.reduced, velocity,
                          b.weight_of_state());
  }
};
static_assert(Optimizer<Sgd>);

}  // namespace dsx

// dsx-policy: optimizer sgd Sgd{.rate = 0.1, .momentum = 0.9}
