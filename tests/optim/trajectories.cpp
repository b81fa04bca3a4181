// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold
/// Twelve steps of each optimizer on given gradients, against PyTorch's and the papers' formulas, in float and in double.
#include "support/golden.hpp"
#include "support/raw_parameters.hpp"

#include <dsx/optim/adamw.hpp>
#include <dsx/optim/muon.hpp>
#include <dsx/optim/sgd.hpp>
#include <dsx/train/trainer.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::golden_parameters;
using test::NoLoss;
using test::numbers;
using test::part_of;
using test::relative;

namespace {

const SafetensorsFile& file() {
  static const SafetensorsFile opened{test::golden("optim/trajectories.safetensors")};
  return opened;
}

/// What the optimizer makes of the gradients, by parameter: its values after each step and its states at the end.
struct Run {
  std::vector<double> values;
  std::vector<std::vector<double>> states;
};
template <class Optimizer>
std::map<std::string, Run> run(Optimizer optimizer, AnyPrecision precision, const std::vector<std::string>& names, Extent steps,
                               const std::map<std::string, std::vector<double>>& initial, const std::map<std::string, std::vector<double>>& gradients,
                               const std::map<std::string, Shape>& shapes, double scale = 1) {
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  test::RawParameters raw;
  for (const std::string& name : names) raw.parameters.push_back({name, Parameter{shapes.at(name)}});
  Weights weights{mesh, Sequential{Named{"raw", raw}}, Recipe{precision}};
  Trainer trainer{weights, optimizer, NoLoss{}, {}};
  const auto path = [](const std::string& name) { return "raw." + name; };
  const int id = 0;
  MicroBatch batch;
  batch.add(std::span{&id, 1}, std::span{&id, 1}, 0);
  std::map<std::string, Run> runs;
  for (const std::string& name : names) weights.assign(path(name), std::span<const double>{initial.at(name)});
  for (Extent step = 0; step < steps; ++step) {
    trainer.accumulate(std::span{&batch, 1});
    for (const std::string& name : names) {
      std::vector<double> gradient;
      for (const double g : part_of(gradients.at(name), steps, step)) gradient.push_back(g / scale);
      weights.assign(path(name), std::span<const double>{gradient}, Which{Which::Of::gradient});
    }
    Verdict verdict = trainer.verdict();
    verdict.scale = scale;
    trainer.commit(verdict);
    for (const std::string& name : names) {
      const auto now = weights.template weight<double>(path(name));
      runs[name].values.insert(runs[name].values.end(), now.begin(), now.end());
    }
  }
  for (const std::string& name : names)
    for (Extent i = 0; i < optimizer.states({.role = Role::matrix}).size(); ++i)
      runs[name].states.push_back(weights.template collect<double>(path(name), {Which::Of::state, i}));
  return runs;
}

/// Against the file's `<optimizer>.<parameter>` and `float64.<optimizer>.<parameter>`; the file keeps final states in float.
template <class Optimizer>
void compare(Optimizer optimizer, const std::string& name, std::vector<std::string> states,
             std::vector<std::string> names = {"matrix", "vector", "scalar", "one_by_one"}) {
  std::map<std::string, std::vector<double>> initial, gradients;
  std::map<std::string, Shape> shapes;
  for (const auto& [parameter, shape] : golden_parameters) {
    initial[parameter] = numbers(file(), std::string{"initial."} + parameter),
    gradients[parameter] = numbers(file(), std::string{"gradient."} + parameter);
    shapes[parameter] = shape;
  }
  for (const double scale : {1.0, 0.25})  // clipping scales what the kernel reads
    for (const bool twice : {false, true}) {
      const auto runs = run(optimizer, twice ? AnyPrecision{Fp64{}} : AnyPrecision{Fp32{}}, names, 12, initial, gradients, shapes, scale);
      for (const auto& [parameter, mine] : runs) {
        INFO(name, ", ", parameter);
        if (twice) CHECK(relative(mine.values, numbers(file(), "float64." + name + "." + parameter)) < 1e-12);
        else CHECK(relative(mine.values, numbers(file(), name + "." + parameter)) < 1e-5);
        REQUIRE(mine.states.size() == states.size());
        for (Extent i = 0; i < states.size(); ++i)
          CHECK(relative(mine.states[i], numbers(file(), name + ".state." + parameter + "." + states[i])) < 1e-5);
      }
    }
}

}  // namespace

TEST_CASE("AdamW's twelve steps equal PyTorch's") {
  compare(AdamW{.rate = 1e-2, .beta_1 = 0.9, .beta_2 = 0.95, .epsilon = 1e-8, .decay = 0.1}, "adamw", {"exp_avg", "exp_avg_sq"});
}

TEST_CASE("twelve steps of gradient descent equal PyTorch's, with and without momentum") {
  compare(Sgd{.rate = 1e-2, .decay = 0.01}, "sgd", {});
  compare(Sgd{.rate = 1e-2, .momentum = 0.9, .decay = 0.01}, "sgd_momentum", {"momentum_buffer"});
}

TEST_CASE("Muon's twelve steps equal the paper's formula, and PyTorch's in bfloat16 loosely") {
  compare(Muon{.rate = 2e-2, .momentum = 0.95, .decay = 0.1}, "muon", {"m"}, {"matrix", "one_by_one"});
  const auto runs = run(Muon{.rate = 2e-2, .momentum = 0.95, .decay = 0.1}, Fp32{}, {"matrix"}, 12, {{"matrix", numbers(file(), "initial.matrix")}},
                        {{"matrix", numbers(file(), "gradient.matrix")}}, {{"matrix", {7, 5}}});
  CHECK(relative(runs.at("matrix").values, numbers(file(), "muon_torch_bf16.matrix")) < 5e-3);
}

TEST_CASE("five Newton-Schulz steps of tall, wide and square matrices equal the paper's") {
  for (const auto& [name, shape] : {std::pair<std::string, Shape>{"tall", {7, 5}}, {"wide", {5, 7}}, {"square", {6, 6}}})
    for (const bool twice : {false, true}) {
      INFO(name);
      // Without momentum, at rate 1 and from 0 a step is the orthogonalised gradient, stretched and turned round.
      const auto runs =
          run(Muon{.rate = 1, .momentum = 0, .decay = 0}, twice ? AnyPrecision{Fp64{}} : AnyPrecision{Fp32{}}, {name}, 1,
              {{name, std::vector<double>(shape.size())}}, {{name, numbers(file(), "newton_schulz." + name + ".input")}}, {{name, shape}});
      std::vector<double> mine = runs.at(name).values;
      for (double& x : mine) x /= -std::sqrt(std::max(1.0, double(shape.rows) / double(shape.columns)));
      CHECK(relative(mine, numbers(file(), (twice ? "float64.newton_schulz." : "newton_schulz.") + name + ".output")) < (twice ? 1e-12 : 1e-5));
    }
}
