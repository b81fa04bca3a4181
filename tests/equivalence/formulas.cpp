// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a comparison of layouts can't see, because all of them would be wrong alike: a whole step's gradient against differences of
/// its loss, clipping and AdamW against their formulas, losses inside recomputed units.
// labels: gradient
#include "support/runs.hpp"

#include <doctest/doctest.h>

using namespace toy;

namespace {

constexpr Elements exact{Element::f64, Element::f64, Element::f64};

/// The sum of squares of a value, for a loss in the middle of a model.
struct SumOfSquares : Operation {
  static constexpr const char* name = "sum_of_squares";
  Node x, y;
  void forward(Pass& p) const {
    const auto sum = [](View from, View to) {
      double s = 0;
      for (const double e : from.as<double>()) s += e * e;
      *to.pointer<double>() = s;
    };
    p.launch(sum, p.view(x), p.view(y));
  }
  void towards_inputs(Pass& p) const {
    const auto pull = [](View from, View dy, Grad dx) {
      for (Extent i = 0; i < from.size(); ++i) {
        const double d = 2 * from.as<double>()[i] * *dy.pointer<double>();
        dx.view.as<double>()[i] = dx.accumulate ? dx.view.as<double>()[i] + d : d;
      }
    };
    p.launch(pull, p.view(x), p.incoming(y), p.gradient(x));
  }
};
/// A user's layer with a loss of its own.
struct Small {
  void parts(auto&) const {}
  Value<Common> operator()(Value<Common> x_RC) const {
    Pass& p = *x_RC.pass;
    const Node sum = p.make_scalar(Element::f64);
    p.run(SumOfSquares{{}, x_RC.node, sum});
    p.add_loss(sum, 0.01);
    return x_RC;
  }
};
auto make_with_loss_inside() {
  const LayerNorm norm{width};
  const Gpt2Block block{norm, CausalAttention{width, heads, default_deviation, 0.1}, norm, Mlp{width, hidden}, 0.1};
  return Sequential{Named{"embedding", Embedding{vocabulary, length, width, 0.1, "token_table"}},
                    Named{"blocks", Repeat{2, Chain{Named{"small", Small{}}, Named{"block", block}}}},
                    Named{"final", Chain{Named{"spare", Spare{}}, Named{"norm", norm}, Named{"head", Head{vocabulary, width, "token_table"}}}}};
}

/// Gradients of the second, ragged step on one rank.
struct Step {
  Session session{self_transport()};
  Mesh mesh{session, {}};
  Weights<decltype(make_with_loss_inside()), AnyRecipe> weights;
  Trainer<decltype(weights), AnyOptimizer, TokenLoss> trainer;
  std::vector<MicroBatch> batches = Feed{1, 2}(1, 0);

  explicit Step(bool recompute, AnyOptimizer optimizer = {Sgd{.rate = 0.1}}, double clip_at = 0)
      : weights{mesh, make_with_loss_inside(), recipe_of({.recompute = recompute, .elements = exact})},
        trainer{weights, optimizer, TokenLoss{.chunk = 10}, {.micro_batches = 2, .rows = 32, .clip = clip_at, .seed = 9}} {}
  double loss() {
    trainer.accumulate(batches);
    return trainer.verdict().loss;
  }
  double norm() const {
    double squares = 0;
    for (const ParameterRecord& r : weights.records())
      for (const double g : weights.gradient<double>(r.path)) squares += g * g;
    return std::sqrt(squares);
  }
};

}  // namespace

TEST_CASE("a step's gradient is the slope of its loss") {
  for (const bool recompute : {false, true}) {
    Step step{recompute};
    (void)step.loss();
    std::map<std::string, std::vector<double>> gradients;
    for (const ParameterRecord& r : step.weights.records()) gradients[r.path] = step.weights.gradient<double>(r.path);
    for (const auto& [path, gradient] : gradients) {
      const std::vector<double> there = step.weights.weight<double>(path);
      std::vector<double> direction(there.size());
      InitialValues normal{path, 5, {0, 1}};
      double slope = 0, length_of_direction = 0, length_of_gradient = 0;
      for (Extent i = 0; i < direction.size(); ++i) {
        direction[i] = normal[i];
        slope += direction[i] * gradient[i], length_of_direction += direction[i] * direction[i], length_of_gradient += gradient[i] * gradient[i];
      }
      const double h = 1e-4 / std::sqrt(length_of_direction);
      const auto moved = [&](double by) {
        std::vector<double> w = there;
        for (Extent i = 0; i < w.size(); ++i) w[i] += by * direction[i];
        step.weights.assign(path, std::span<const double>{w});
        return step.loss();
      };
      const double measured = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
      step.weights.assign(path, std::span<const double>{there});
      const double scale = std::sqrt(length_of_gradient * length_of_direction);
      CHECK_MESSAGE(std::abs(measured - slope) <= 1e-7 * scale + 1e-9, path << ": slope " << measured << ", gradient along it " << slope);
      if (path == "final.spare.unused")
        CHECK(length_of_gradient == 0);
      else if (!is_qkv_bias(path))
        CHECK_MESSAGE(length_of_gradient > 0, path);
    }
  }
}

TEST_CASE("a loss inside a unit that is played again counts once") {
  Step kept{false}, played{true};
  CHECK(kept.loss() == played.loss());
  for (const ParameterRecord& r : kept.weights.records())
    CHECK_MESSAGE(kept.weights.gradient<double>(r.path) == played.weights.gradient<double>(r.path), r.path);

  // Whoever reads a pass's loss behind its backward finds the same.
  Memory& memory = played.session.memory;
  memory.scratch.reserve(1_MiB), memory.carried.reserve(1_MiB);
  Lifetimes lives;
  Stage stage{played.weights, TokenLoss{.chunk = 10}};
  Flight flight{played.mesh, lives, {.element = Element::f64, .seed = 9}};
  flight.pass.saved.reserve(4_MiB);
  played.weights.bundles().begin_step();
  stage.forward(flight, played.batches[0].view(32), Counts{1}, 0);
  const double loss = flight.pass.loss;
  CHECK(loss > 0);
  stage.backward(flight);
  CHECK(flight.pass.loss == loss);
}

TEST_CASE("clipping scales a step by the clip over the norm") {
  for (const double clip_at : {0.0, 0.05, 1e6}) {
    Step step{false, {Sgd{.rate = 0.1}}, clip_at};
    std::map<std::string, std::vector<double>> before;
    for (const ParameterRecord& r : step.weights.records()) before[r.path] = step.weights.weight<double>(r.path);
    const Verdict v = step.trainer.step(step.batches);
    const double norm = step.norm(), factor = clip_at > 0 ? std::min(1.0, clip_at / (norm + 1e-6)) : 1;
    CHECK(std::sqrt(v.squared_norm) == doctest::Approx(norm).epsilon(1e-13));
    CHECK(v.scale == doctest::Approx(factor).epsilon(1e-13));
    CHECK((v.scale < 1) == (clip_at == 0.05));
    for (const auto& [path, there] : before) {
      const auto now = step.weights.weight<double>(path), gradient = step.weights.gradient<double>(path);
      double worst = 0;
      for (Extent i = 0; i < now.size(); ++i) worst = std::max(worst, std::abs(there[i] - 0.1 * factor * gradient[i] - now[i]));
      CHECK_MESSAGE(worst <= 1e-15, path);
    }
  }
}

TEST_CASE("AdamW on clipped gradients follows its paper, and vectors don't decay") {
  const AdamW rule{.rate = 1e-2, .beta_1 = 0.9, .beta_2 = 0.95, .epsilon = 1e-6, .decay = 0.5};
  Step step{false, {rule}, 0.05};
  std::map<std::string, std::vector<double>> w, m, v;
  for (const ParameterRecord& r : step.weights.records())
    w[r.path] = step.weights.weight<double>(r.path), m[r.path].resize(r.shape.size()), v[r.path].resize(r.shape.size());
  for (int t = 1; t <= 3; ++t) {
    const double scale = step.trainer.step(step.batches).scale;
    CHECK(scale < 1);
    for (const ParameterRecord& r : step.weights.records()) {
      const auto gradient = step.weights.gradient<double>(r.path), now = step.weights.weight<double>(r.path);
      double worst = 0;
      for (Extent i = 0; i < gradient.size(); ++i) {
        const double g = scale * gradient[i];
        double &x = w[r.path][i], &first = m[r.path][i], &second = v[r.path][i];
        first = 0.9 * first + 0.1 * g, second = 0.95 * second + 0.05 * g * g;
        const double step_size = first / (1 - std::pow(0.9, t)) / (std::sqrt(second / (1 - std::pow(0.95, t))) + 1e-6);
        x -= 1e-2 * (step_size + (r.role == Role::vector ? 0 : 0.5) * x);
        worst = std::max(worst, std::abs(x - now[i]));
      }
      CHECK_MESSAGE(worst <= 1e-13, r.path);
    }
  }
}
