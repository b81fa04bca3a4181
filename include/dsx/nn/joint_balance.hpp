// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The two ends between which routers are judged together (ops/joint_balance.hpp); the blocks in between are as they are.
///
///     Sequential{Named{"embedding", BeginTally{TokenEmbedding{v, c}, 8}}, Named{"blocks", Repeat{12, block}},
///                Named{"final", EndTally{Chain{Named{"norm", RmsNorm{c}}, Named{"head", Head{v, c}}}, 0.02}}}
#pragma once

#include <dsx/ops/embedding.hpp>
#include <dsx/ops/joint_balance.hpp>

namespace dsx {

template <class Layer>
struct BeginTally {
  Layer layer;
  Extent experts;
  void parts(auto& visit) const { layer.parts(visit); }
  Judged operator()(Tokens t) const { return begin_tally(layer(t), experts); }
};
template <class L>
BeginTally(L, Extent) -> BeginTally<L>;

template <class Layer>
struct EndTally {
  Layer layer;
  double weight;
  void parts(auto& visit) const { layer.parts(visit); }
  auto operator()(Judged stream) const {
    add_joint_balance_loss(stream, weight);
    return layer(stream.x_RC);
  }
};
template <class L>
EndTally(L, double) -> EndTally<L>;

}  // namespace dsx
