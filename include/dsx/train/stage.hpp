// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// One micro-batch through this rank's units: receive, forward, send; receive, backward, send.
///
///     Stage stage{weights, objective};
///     stage.forward(flight, batch, counts, step);
///     stage.backward(flight);
#pragma once

#include <dsx/train/objective.hpp>
#include <dsx/weights/weights.hpp>

namespace dsx {

/// A place for one micro-batch under way.
struct Flight {
  Pass pass;
  std::vector<Node> leaving{};
  Flight(const Mesh& mesh, Lifetimes& lives, PassOptions options) : pass{mesh, lives, options} {}
};

template <class Weights, class Objective>
class Stage {
 public:
  Stage(Weights& weights, Objective objective) : weights_{&weights}, objective_{std::move(objective)} {}

  void forward(Flight& flight, const Batch& batch, const Counts& counts, std::uint32_t step) {
    flight.pass.close();
    flight.leaving.clear();
    flight.pass.open(batch, step, Unit(weights_->range().begin));
    Forward visit{*this, flight, counts};
    weights_->model().walk(weights_->range(), Tokens{&flight.pass}, visit);
  }

  void backward(Flight& flight) {
    Pass& pass = flight.pass;
    Bundles& bundles = weights_->bundles();
    const Communicator& pipe = mesh().along(Axes::pipe);
    for (const Node n : flight.leaving) receive(pass, pass.gradient(n));
    for (Unit u = Unit(weights_->range().end); u-- > weights_->range().begin;) {
      bundles.acquire(u, Direction::backward);
      pass.pull_unit(u, bundles.binding(u));
      bundles.close(u);
      bundles.release();
    }
    if (index() > 0)
      for (Node n = 0; n < weights_->entering().size(); ++n) {
        if (!pass.arrived(n)) mesh().session().launch(kernels::zero, pass.gradient(n).view);  // a value that only passes through
        pass.lend(pipe.send(pass.incoming(n), index() - 1));
      }
  }

  const Objective& objective() const { return objective_; }
  const Mesh& mesh() const { return weights_->mesh(); }
  Weights& weights() const { return *weights_; }

 private:
  /// What the typed walk over units does forward.
  struct Forward {
    Stage& stage;
    Flight& flight;
    const Counts& counts;
    Pass& pass = flight.pass;

    void enter(auto& flow) {
      if constexpr (requires { flow.open(pass); }) flow.open(pass);
      Extent i = 0;
      flow.values([&]<class D>(Value<D>& value) {
        const auto& e = stage.weights_->entering()[i++];
        value = pass.make<D>(e.columns, e.element);
        stage.mesh().along(Axes::pipe).receive(pass.view(value.node), stage.index() - 1).wait();
      });
    }
    auto unit(const auto& layer, Unit unit, auto flow, auto last) {
      Bundles& bundles = stage.weights_->bundles();
      bundles.acquire(unit, Direction::forward);
      pass.enter(unit, bundles.binding(unit));
      auto out = stage.weights_->recipe().template get<RecomputeSlot>().run(layer, flow, pass);
      if constexpr (last) stage.objective_(out, counts);
      pass.leave_unit();
      bundles.release();
      return out;
    }
    void leave(auto& flow) {
      flow.values([&](auto& value) {
        pass.keep(value.node);
        flight.leaving.push_back(value.node);
        pass.lend(stage.mesh().along(Axes::pipe).send(pass.view(value.node), stage.index() + 1));
      });
    }
  };
  /// A value may leave under two names: its gradients add up.
  void receive(Pass& pass, const Grad& to) {
    const auto scope = pass.scratch_scope();
    const View from = to.accumulate ? pass.scratch(to.view.shape, to.view.element) : to.view;
    mesh().along(Axes::pipe).receive(from, index() + 1).wait();
    if (to.accumulate) mesh().session().launch(kernels::pass_on, from, to);
  }
  Extent index() const { return mesh().coordinate(Axes::pipe); }

  Weights* weights_;
  Objective objective_;
};

}  // namespace dsx
