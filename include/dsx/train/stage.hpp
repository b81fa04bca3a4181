// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// One micro-batch through one chunk of this rank's units: receive, forward, send; receive, backward, send.
///
///     Stage stage{weights, objective};
///     stage.forward(flight, batch, counts, step);
///     stage.backward(flight);
#pragma once

#include <dsx/core/on_exception.hpp>
#include <dsx/train/objective.hpp>
#include <dsx/weights/weights.hpp>

#include <deque>

namespace dsx {

/// A place for one micro-batch under way on one chunk.
struct Flight {
  Pass pass;
  Extent chunk;
  std::vector<Node> leaving{};
  Flight(const Mesh& mesh, Lifetimes& lives, PassOptions options, Extent chunk_ = 0) : pass{mesh, lives, options}, chunk{chunk_} {}
};

template <class Weights, class Objective>
class Stage {
 public:
  Stage(Weights& weights, Objective objective) : weights_{&weights}, objective_{std::move(objective)} {
    const Extent chunks = weights.ranges().size();
    for (Extent c = 0; c < chunks; ++c) {
      const auto lane = [&] { return chunks > 1 ? mesh().another(Axes::pipe) : mesh().along(Axes::pipe); };
      ahead_.push_back(lane()), back_.push_back(lane());
    }
  }

  void forward(Flight& flight, const Batch& batch, const Counts& counts, std::uint32_t step) {
    flight.pass.close();
    flight.leaving.clear();
    const Range units = weights_->ranges()[flight.chunk];
    flight.pass.open(batch, step, Unit(units.begin));
    Forward visit{*this, flight, counts};
    weights_->model().walk(units, Tokens{&flight.pass}, visit);
    flight.pass.park();
  }

  void backward(Flight& flight) {
    Pass& pass = flight.pass;
    Bundles& bundles = weights_->bundles();
    const Range units = weights_->ranges()[flight.chunk];
    if (!flight.leaving.empty()) {
      const Communicator& lane = back_[after(flight.chunk)];
      for (const Node n : flight.leaving) receive(pass, pass.gradient(n), lane);
    }
    for (Unit u = Unit(units.end); u-- > units.begin;) {
      bundles.acquire(u, Direction::backward, u > units.begin ? std::optional{u - 1} : std::nullopt);
      pass.pull_unit(u, bundles.binding(u));
      bundles.close(u);
      bundles.release(u);
    }
    if (units.begin > 0)
      for (Node n = 0; n < weights_->entering(flight.chunk).size(); ++n) {
        if (!pass.arrived(n)) mesh().session().launch(kernels::zero, pass.gradient(n).view);  // a value that only passes through
        pass.lend(back_[flight.chunk].send(pass.incoming(n), previous()));
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
        const auto& e = stage.weights_->entering(flight.chunk)[i++];
        value = pass.make<D>(e.columns, e.element);
        stage.ahead_[flight.chunk].receive(pass.view(value.node), stage.previous()).wait();
      });
    }
    auto unit(const auto& layer, Unit unit, auto flow, auto last) {
      Bundles& bundles = stage.weights_->bundles();
      bundles.acquire(unit, Direction::forward, unit + 1 < stage.weights_->ranges()[flight.chunk].end ? std::optional{unit + 1} : std::nullopt);
      pass.enter(unit, bundles.binding(unit));
      auto out = stage.weights_->recipe().template get<RecomputeSlot>().run(layer, flow, pass);
      if constexpr (last) stage.objective_(out, counts);
      pass.leave_unit();
      bundles.release(unit);
      return out;
    }
    void leave(auto& flow) {
      flow.values([&](auto& value) {
        pass.keep(value.node);
        flight.leaving.push_back(value.node);
        pass.lend(stage.ahead_[stage.after(flight.chunk)].send(pass.view(value.node), stage.next()));
      });
    }
  };
  /// A value may leave under two names: its gradients add up.
  void receive(Pass& pass, const Grad& to, const Communicator& lane) {
    const auto scope = pass.scratch_scope();
    const View from = to.accumulate ? pass.scratch(to.view.shape, to.view.element) : to.view;
    lane.receive(from, next()).wait();
    if (to.accumulate) mesh().session().launch(kernels::pass_on, from, to);
  }
  Extent index() const { return mesh().coordinate(Axes::pipe); }
  Extent stages() const { return mesh().size(Axes::pipe); }
  Rank previous() const { return (index() + stages() - 1) % stages(); }
  Rank next() const { return (index() + 1) % stages(); }
  /// The next stage's chunk that follows one of this stage's.
  Extent after(Extent chunk) const { return index() + 1 == stages() ? chunk + 1 : chunk; }

  Weights* weights_;
  Objective objective_;
  // What enters a chunk, and the gradients that leave it, each on a lane of its own: between two stages chunks' messages would mix.
  std::vector<Communicator> ahead_{}, back_{};
};

/// A micro-batch that isn't learned from, through all of this stage's chunks: no tape, no dropout.
class Sweep {
 public:
  template <class Weights>
  explicit Sweep(const Weights& weights) {
    for (Extent chunk = 0; chunk < weights.ranges().size(); ++chunk) {
      Lifetimes& lives = lives_.emplace_back();
      flights_.emplace_back(weights.mesh(), lives, PassOptions{weights.elements().value, 0, false}, chunk);
    }
  }
  Sweep(const Sweep&) = delete;
  Sweep& operator=(const Sweep&) = delete;

  /// Where keys and values come from, if not from the sweep itself.
  void attend(Attending& attending) {
    for (Flight& f : flights_) f.pass.attending = &attending;
  }
  /// The losses of this rank's units, also added to `losses` if there is one.
  template <class Weights, class Objective>
  double forward(Stage<Weights, Objective>& stage, const Batch& batch, const Counts& counts, ExactSum* losses = nullptr) {
    const OnException abandon{[&] {
      stage.weights().bundles().abandon();
      for (Flight& f : flights_) f.pass.abandon();
    }};
    double loss = 0;
    for (Flight& f : flights_) f.pass.losses = losses, stage.forward(f, batch, counts, 0), loss += f.pass.loss;
    for (Flight& f : flights_) f.pass.close();
    return loss;
  }
  /// A dry sweep has learnt where each value must live; the next one counts.
  void learned() {
    for (Lifetimes& l : lives_) l.known = true;
    for (Flight& f : flights_) f.pass.saved.forget_peak();
  }
  /// As a dry twin has planned.
  void plan_as(const Sweep& twin) {
    lives_ = twin.lives_;
    for (Extent c = 0; c < flights_.size(); ++c) flights_[c].pass.saved.reserve(twin.flights_[c].pass.saved.peak());
  }

 private:
  std::deque<Lifetimes> lives_{};  // by chunk
  std::deque<Flight> flights_{};
};

}  // namespace dsx
