// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A pass over the units of some weights without a trainer, so that a test can look at every value.
///
///     ByHand by_hand{weights, false};
///     by_hand.forward(batch.view(batch.rows()), [&](const auto& layer, auto flow, Unit) { return layer(flow); });
///     const std::vector<double> y = by_hand.read(node);
#pragma once

#include <dsx/weights/weights.hpp>

namespace dsx::test {

/// Nothing is known of lifetimes, so every value lies on the stack of what is saved, until the next forward.
template <class Weights>
class ByHand {
 public:
  ByHand(Weights& weights, bool recording, Extent bytes = 32_MiB)
      : weights_{&weights}, pass_{weights.mesh(), lives_, {.element = weights.elements().value, .recording = recording}} {
    Memory& memory = weights.mesh().session().memory;
    pass_.saved.reserve(bytes), memory.scratch.reserve(bytes), memory.carried.reserve(bytes);
    memory.gathered.reserve(bytes), memory.reducing.reserve(bytes);
  }

  /// `run(layer, flow, unit)` gives what goes to the next unit.
  template <class Run>
  void forward(const Batch& batch, Run run) {
    pass_.close();
    pass_.open(batch, 0, 0);
    Visit<Run> visit{*this, run};
    weights_->model().walk(weights_->ranges().front(), Tokens{&pass_}, visit);
  }
  void backward() {
    for (Unit u = Unit(weights_->ranges().front().end); u-- > weights_->ranges().front().begin;) {
      weights_->bundles().acquire(u, Direction::backward);
      pass_.pull_unit(u, weights_->bundles().binding(u));
      weights_->bundles().close(u);
      weights_->bundles().release(u);
    }
  }

  Pass& pass() { return pass_; }
  std::vector<double> read(Node node) {
    const View v = pass_.view(node);
    std::vector<double> all(v.size());
    dispatch(v.element, [&](auto zero) { std::copy_n(v.pointer<decltype(zero)>(), v.size(), all.begin()); });
    return all;
  }

 private:
  template <class Run>
  struct Visit {
    ByHand& by_hand;
    Run& run;
    void enter(auto&) {}
    void leave(auto&) {}
    auto unit(const auto& layer, Unit unit, auto flow, auto) {
      Bundles& bundles = by_hand.weights_->bundles();
      bundles.acquire(unit, Direction::forward);
      by_hand.pass_.enter(unit, bundles.binding(unit));
      auto out = run(layer, flow, unit);
      by_hand.pass_.leave_unit();
      bundles.release(unit);
      return out;
    }
  };

  Weights* weights_;
  Lifetimes lives_{};
  Pass pass_;
};

}  // namespace dsx::test
