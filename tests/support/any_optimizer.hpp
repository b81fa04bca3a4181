// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// An optimizer chosen at run time, so that a trainer is instantiated once for all of them.
///
///     Trainer trainer{weights, toy::AnyOptimizer{Sgd{.rate = 0.1}}, TokenLoss{}, options};
#pragma once

#include <dsx/optim/muon.hpp>
#include <dsx/optim/sgd.hpp>

#include <variant>

namespace toy {

struct AnyOptimizer {
  std::variant<dsx::Sgd, dsx::AdamW, dsx::Muon> chosen;

  std::vector<dsx::StateSpec> states(const dsx::ParameterInfo& info) const {
    return std::visit([&](const auto& o) { return o.states(info); }, chosen);
  }
  void update(dsx::Bundle& b, const dsx::Verdict& v, const dsx::Mesh& mesh) const {
    std::visit([&](const auto& o) { o.update(b, v, mesh); }, chosen);
  }
};
static_assert(dsx::Optimizer<AnyOptimizer>);

}  // namespace toy
