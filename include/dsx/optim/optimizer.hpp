// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What an optimizer is. It sees this rank's slice of a bundle; what it needs beyond (norms, matrices) it asks of the mesh.
///
///     struct SignDescent {                                  // a user's own
///       double rate = 1e-4;
///       std::vector<dsx::StateSpec> states(const dsx::ParameterInfo&) const { return {}; }
///       void update(dsx::Bundle& b, const dsx::Verdict& v, const dsx::Mesh& mesh) const;
///     };
#pragma once

#include <dsx/weights/bundles.hpp>

namespace dsx {

/// What the whole world knows of a step before it is committed.
struct Verdict {
  double squared_norm = 0, loss = 0;  // where ranks keep their terms of gradients the norm is a bound: Bundles::squared_norm()
  bool finite = true;
  double scale = 1;  // of gradients: clipping
  Extent step = 0;   // of the optimizer, from 1
};

/// A tensor of state as large as the weight, in the master's element.
struct StateSpec {
  const char* name;
  bool squares = false;  // a mean of squares, never negative: where state is packed, its root is
};

template <class O>
concept Optimizer = requires(O& o, Bundle& b, const Verdict& v, const Mesh& m, const ParameterInfo& i) {
  { o.states(i) } -> std::same_as<std::vector<StateSpec>>;
  o.update(b, v, m);
};

/// An optimizer may sum over data ranks what it makes of gradients, in place of them: `reduction(bundle, mesh)` makes that sum, which update()
/// finds as b.own_sum, and until `exact_steps()` steps are done gradients are summed as ever; then b.reduced is this rank's term.
template <class O>
concept SumsItself = Optimizer<O> && requires(const O& o, const Bundle& b, const Mesh& m) {
  { o.reduction(b, m) } -> std::same_as<std::unique_ptr<Reduction>>;
  { o.exact_steps() } -> std::same_as<Extent>;
};
template <class O>
std::unique_ptr<Reduction> reduction_of(const O& optimizer, const Bundle& b, const Mesh& mesh) {
  if constexpr (SumsItself<O>) return optimizer.reduction(b, mesh);
  else return {};
}
/// Steps that all end alike begin after these.
template <class O>
Extent exact_steps_of(const O& optimizer) {
  if constexpr (SumsItself<O>) return optimizer.exact_steps();
  else return 0;
}

/// Weight decay leaves vectors (biases, gains) alone.
constexpr double decay_of(double decay, Role role) { return role == Role::vector ? 0 : decay; }

}  // namespace dsx
