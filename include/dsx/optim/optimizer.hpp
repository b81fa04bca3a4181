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
  double squared_norm = 0, loss = 0;
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

/// Weight decay leaves vectors (biases, gains) alone.
constexpr double decay_of(double decay, Role role) { return role == Role::vector ? 0 : decay; }

}  // namespace dsx
