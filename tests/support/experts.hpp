// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A layer with its parameters, for a Workbench: numbered behind an input, which is parameter 0.
///
///     const Numbered layer{{7, 6}, Experts{4, Dropless<2>{.width = 6, .experts = 4}, Mlp{6, 5}}};
///     Workbench bench{mesh, layer.parameters, {3, 4}, [&](Workbench& b) { b.weigh(layer.layer(b.given<Common>(0))); }};
#pragma once

#include "workbench.hpp"

#include <dsx/nn/experts.hpp>

namespace dsx::test {

template <class L>
struct Numbered {
  std::vector<Parameter> parameters;
  L layer;

  Numbered(Shape input, L l, float deviation = 0.5F) : parameters{random(input, 0, {}, 1)}, layer{std::move(l)} {
    each_part("", layer, [&](const std::string&, const Parameter& p) {
      const_cast<Parameter&>(p).slot = Slot(parameters.size());
      parameters.push_back(p);
      parameters.back().init.deviation = deviation;
    });
  }
};
template <class L>
Numbered(Shape, L) -> Numbered<L>;

/// The largest difference; infinite where sizes differ or something isn't finite.
inline double furthest(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double most = 0;
  for (Extent i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - b[i]);
    if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
    most = std::max(most, difference);
  }
  return most;
}

}  // namespace dsx::test
