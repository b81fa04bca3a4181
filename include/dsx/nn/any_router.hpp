// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A router that is chosen at run time, by a command line or a configuration.
///
///     AnyRouter dense{}, router{.width = 768, .experts = 8, .choice = TokenChoice{.choices = 2}};                        // Dropless<2>
///     AnyRouter seats{.width = 768, .experts = 8, .choice = TokenChoice{.choices = 2, .capacity = {1.25, 4}}};           // TopK<2>
#pragma once

#include <dsx/ops/route.hpp>

namespace dsx {

struct AnyRouter {
  Extent width = 0, experts = 1;
  std::optional<TokenChoice> choice{};  // none: one expert, without weights of the router's own
  Parameter gate{{width, experts}, {0, 0.02F}};

  void parts(auto& visit) const {
    if (choice) visit("gate", gate);
  }
  Routes operator()(Value<Common> x_RC) const { return choice ? (*choice)(x_RC, gate) : Dense{}(x_RC); }
};
static_assert(ExpertRouter<AnyRouter>);

}  // namespace dsx
