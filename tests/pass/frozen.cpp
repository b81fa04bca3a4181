// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Frozen parameters: no gradient is written for them, and what lies below them still gets its own.
#include "support/workbench.hpp"

#include <dsx/ops/add.hpp>
#include <dsx/ops/bias.hpp>
#include <dsx/ops/embedding.hpp>
#include <dsx/ops/fan.hpp>
#include <dsx/ops/layer_norm.hpp>
#include <dsx/ops/linear.hpp>
#include <dsx/ops/token_loss.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::Workbench;

namespace {

/// All gradients with every subset of the parameters frozen: the rest must not change, the frozen ones must not be touched.
void check_every_subset(const std::vector<Parameter>& parameters, const Workbench::Graph& graph) {
  test::on_one_rank([&](const Mesh& mesh) {
    Workbench all{mesh, parameters, {3, 4}, graph};
    CHECK(all.gradient_error() < 1e-7);
    const double loss = all.run(true);
    for (unsigned subset = 1; subset < (1U << parameters.size()); ++subset) {
      std::vector<Parameter> some = parameters;
      for (Slot s = 0; s < some.size(); ++s) some[s].trained = (subset >> s & 1) == 0;
      Workbench bench{mesh, some, {3, 4}, graph};
      INFO("frozen: bits of ", subset);
      CHECK(bench.run(true) == loss);
      for (Slot s = 0; s < some.size(); ++s) {
        if (some[s].trained) CHECK(bench.gradient(s) == all.gradient(s));
        else CHECK_FALSE(bench.held(s).touched);
      }
    }
    return 0;
  });
}

}  // namespace

TEST_CASE("a product's weight and bias freeze apart") {
  check_every_subset({test::random({7, 6}), test::random({6, 4}), test::random({1, 4})}, [](Workbench& b) {
    b.weigh(linear<op::Matmul>(b.given<Common>(0), b.parameter(1), &b.parameter(2), Gelu::tanh));
  });
}

TEST_CASE("a norm's gain and bias freeze apart") {
  check_every_subset({test::random({7, 6}), test::random({1, 6}, 1), test::random({1, 6})}, [](Workbench& b) {
    b.weigh(layer_norm(b.given<Common>(0), b.parameter(1), b.parameter(2)));
  });
}

TEST_CASE("biases, tables and heads freeze") {
  check_every_subset({test::random({7, 6}, 0, {Cut::rows}), test::random({5, 6}), test::random({1, 6}), test::random({7, 6}, 0, {Cut::rows})},
                     [](Workbench& b) {
                       const auto x = add_bias(add_positions(fan_in(lookup(Tokens{&b.pass()}, b.parameter(0))), b.parameter(1)), b.parameter(2));
                       b.pass().add_loss(cross_entropy({fan_out(x), 3, {0, 7}, 7}, 3), 0.25);
                     });
}
