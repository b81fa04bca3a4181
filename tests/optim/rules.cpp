// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Which rule each parameter takes, and that the master keeps what narrow weights can't show.
#include "support/workbench.hpp"

#include <dsx/dsx.hpp>
#include <dsx/optim/any_optimizer.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

constexpr Gpt2Shape shape{.vocabulary = 13, .positions = 8, .width = 8, .heads = 2, .layers = 1};

/// Every parameter before and after a step whose gradient is zero.
template <class Check>
void idle_step(AnyOptimizer optimizer, AnyPrecision precision, Extent steps, Check check) {
  test::on_one_rank([&](const Mesh& mesh) {
    Weights weights{mesh, make_gpt2(shape), Recipe{precision}};
    Trainer trainer{weights, optimizer, TokenLoss{}, {.rows = 8}};
    MicroBatch batch;
    const std::vector<int> ids{1, 5, 3}, targets{5, 3, 9};
    batch.add(ids, targets, 0);
    for (const ParameterRecord& r : weights.records()) weights.assign(r.path, std::span<const double>{std::vector<double>(r.shape.size(), 2)});
    for (Extent step = 0; step < steps; ++step) {
      trainer.accumulate(std::span{&batch, 1});
      for (const ParameterRecord& r : weights.records())
        weights.assign(r.path, std::span<const double>{std::vector<double>(r.shape.size())}, {Which::Of::gradient});
      trainer.commit(trainer.verdict());
    }
    for (const ParameterRecord& r : weights.records()) {
      INFO(r.path);
      for (const double w : weights.template weight<double>(r.path)) check(r, w);
    }
    for (const Bundle& b : weights.bundles().all()) check(b);
    return 0;
  });
}
/// Decay alone moves a weight of 2.
struct Decays {
  double matrix, table;
  void operator()(const ParameterRecord& r, double w) const {
    const double factor = r.role == Role::matrix ? matrix : r.role == Role::table ? table : 1;
    CHECK(w == doctest::Approx(2 * factor).epsilon(1e-12));
  }
  void operator()(const Bundle&) const {}
};

}  // namespace

TEST_CASE("weight decay spares vectors, and tables take AdamW's under Muon") {
  idle_step(AdamW{.rate = 0.1, .decay = 0.2}, Fp64{}, 1, Decays{0.98, 0.98});
  idle_step(Sgd{.rate = 0.1, .decay = 0.2}, Fp64{}, 1, Decays{0.98, 0.98});
  idle_step(Muon{.rate = 0.1, .decay = 0.3, .others = {.rate = 0.1, .decay = 0.2}}, Fp64{}, 1, Decays{0.97, 0.98});
}

TEST_CASE("Muon keeps one momentum for matrices and AdamW's two moments for the rest") {
  const ParameterInfo matrix{.role = Role::matrix}, table{.role = Role::table}, vector{.role = Role::vector};
  CHECK(Muon{}.states(matrix).size() == 1);
  CHECK(Muon{}.states(table).size() == 2);
  CHECK(Muon{}.states(vector).size() == 2);
  CHECK(Sgd{}.states(matrix).empty());
  CHECK(Sgd{.momentum = 0.9}.states(matrix).size() == 1);
  CHECK(AdamW{}.states(table).size() == 2);
}

TEST_CASE("the master moves by steps too small for a bfloat16 weight, which follows it") {
  struct Check {
    void operator()(const ParameterRecord& r, double w) const {
      if (r.role != Role::vector) CHECK(w == doctest::Approx(2 * std::pow(1 - 1e-4, 50)).epsilon(1e-6));
    }
    void operator()(const Bundle& b) const {
      if (b.kind.role == Role::vector) return;
      CHECK(b.elements.value == Element::bf16);
      // A single step of 2e-4 is far below 2^-7, half the spacing around 2; fifty together are not.
      CHECK(float(b.weight_of_state().pointer<bf16>()[0]) == float(bf16{2 * std::pow(1 - 1e-4, 50)}));
      CHECK(float(b.weight_of_state().pointer<bf16>()[0]) != 2);
    }
  };
  idle_step(AdamW{.rate = 1e-3, .decay = 0.1}, Bf16{}, 50, Check{});
}

TEST_CASE("a schedule scales an optimizer's rates from where they began; an unknown name is refused: dsx-E108") {
  AnyOptimizer muon = optimizer_named("muon", 0.2, 0.1);
  muon.scale_rate(0.5);
  CHECK(muon.rate() == doctest::Approx(0.1));
  muon.scale_rate(0.25);
  CHECK(muon.rate() == doctest::Approx(0.05));
  CHECK(optimizer_named("adamw", 1e-3, 0).states({.role = Role::matrix}).size() == 2);
  CHECK_THROWS_WITH_AS(optimizer_named("adam", 1e-3, 0), "dsx-E108: no optimizer is called \"adam\"; there are adamw, sgd, muon and onebit_adam",
                       Error);
}
