// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Shapes, tokens and positions that an operation can't take, each by its number and with the values that don't fit.
#include "support/workbench.hpp"

#include <dsx/nn/attention.hpp>
#include <dsx/ops/add.hpp>
#include <dsx/ops/bias.hpp>
#include <dsx/ops/dropout.hpp>
#include <dsx/ops/embedding.hpp>
#include <dsx/ops/layer_norm.hpp>
#include <dsx/ops/linear.hpp>
#include <dsx/ops/rms_norm.hpp>
#include <dsx/ops/rope.hpp>
#include <dsx/ops/swiglu.hpp>
#include <dsx/ops/token_loss.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::Workbench;

namespace {

/// What building and running a graph over a 7 x 6 input and a parameter of `shape` says.
std::string refusal(Shape shape, const Workbench::Graph& graph, const std::function<void(Workbench&)>& change = [](Workbench&) {}, Split split = {}) {
  try {
    test::on_one_rank([&](const Mesh& mesh) {
      Workbench bench{mesh, {test::random({7, 6}), test::random(shape, 0, split)}, {3, 4}, graph};
      change(bench);
      return bench.run(true);
    });
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing";
}

}  // namespace

TEST_CASE("sums of unlike shapes, odd gates and heads, and impossible dropout are refused: dsx-E301") {
  CHECK(refusal({7, 5}, [](Workbench& b) { b.weigh(b.given<Common>(0) + b.given<Common>(1)); }) == "dsx-E301: a value of 9 x 6 plus one of 9 x 5");
  CHECK(refusal({7, 5}, [](Workbench& b) { b.weigh(swiglu(b.given<Common>(1))); }) ==
        "dsx-E301: swiglu of 5 columns; it needs as many gates as values");
  CHECK(refusal({7, 9}, [](Workbench& b) { b.weigh(rope(b.given<Sharded>(1), {1, 1, 3})); }) ==
        "dsx-E301: rotary positions turn pairs of channels; heads of 3 have one left over");
  for (const double rate : {-0.1, 1.0, 2.0}) {
    CHECK(refusal({7, 5}, [rate](Workbench& b) { b.weigh(dropout(b.given<Common>(0), rate)); }).starts_with("dsx-E301: a dropout rate of "));
    CHECK(refusal({7, 6}, [rate](Workbench& b) { b.weigh(causal_attention(b.given<Sharded>(1), {1, 1, 2}, rate)); })
              .starts_with("dsx-E301: a dropout rate of "));
  }
}

TEST_CASE("weights whose inner extent isn't the value's are refused: dsx-E302") {
  CHECK(refusal({5, 4}, [](Workbench& b) { b.weigh(linear<op::Matmul>(b.given<Common>(0), b.parameter(1))); }) ==
        "dsx-E302: a value of 6 columns times a weight of 5 rows");
  CHECK(refusal({6, 4}, [](Workbench& b) { b.weigh(linear<op::Matmul>(b.given<Common>(0), b.parameter(1), nullptr, {}, true)); }) ==
        "dsx-E302: a value of 6 columns times a weight of 4 rows");
  CHECK(refusal({1, 5}, [](Workbench& b) { b.weigh(add_bias(b.given<Common>(0), b.parameter(1))); }) ==
        "dsx-E302: a value of 6 columns plus a bias of 5");
  CHECK(refusal({1, 5}, [](Workbench& b) { b.weigh(layer_norm(b.given<Common>(0), b.parameter(1), b.parameter(1))); }) ==
        "dsx-E302: a value of 6 columns under a norm of 5");
  CHECK(refusal({1, 5}, [](Workbench& b) { b.weigh(rms_norm(b.given<Common>(0), b.parameter(1))); }) ==
        "dsx-E302: a value of 6 columns under a norm of 5");
  CHECK(refusal({7, 5}, [](Workbench& b) { b.weigh(causal_attention(b.given<Sharded>(1), {2, 1, 2})); }) ==
        "dsx-E302: attention of 2 + 2 x 1 heads of 2 needs 8 columns, the value has 5");
  CHECK(refusal({7, 5}, [](Workbench& b) { b.weigh(rope(b.given<Sharded>(1), {2, 1, 2})); }) ==
        "dsx-E302: rotary positions of 2 + 2 x 1 heads of 2 need 8 columns, the value has 5");
}

TEST_CASE("a sequence longer than the table of positions is refused: dsx-E305") {
  const auto graph = [](Workbench& b) { b.weigh(add_positions(b.given<Common>(0), b.parameter(1))); };
  CHECK(refusal({4, 6}, graph) == "nothing");
  CHECK(refusal({3, 6}, graph) == "dsx-E305: a row at position 3; the table has 3 positions");
}

TEST_CASE("tokens and targets outside the vocabulary are refused: dsx-E306") {
  const auto graph = [](Workbench& b) {
    b.weigh(fan_in(lookup(Tokens{&b.pass()}, b.parameter(1))));
    b.pass().add_loss(cross_entropy({fan_out(b.given<Common>(0)), 1, {0, 7}, 7}, 3), 0.25);
  };
  const auto refusal = [&](Shape shape, const Workbench::Graph& g, const std::function<void(Workbench&)>& change) {
    return ::refusal(shape, g, change, {Cut::rows});
  };
  CHECK(refusal({7, 6}, graph, [](Workbench&) {}) == "nothing");
  CHECK(refusal({7, 6}, graph, [](Workbench& b) { b.ids[4] = 7; }) == "dsx-E306: token 7 of a vocabulary of 7");
  CHECK(refusal({7, 6}, graph, [](Workbench& b) { b.ids[0] = -1; }) == "dsx-E306: token -1 of a vocabulary of 7");
  CHECK(refusal({7, 6}, graph, [](Workbench& b) { b.targets[2] = 9; }) == "dsx-E306: target 9 of a vocabulary of 7");
  CHECK(refusal({7, 6}, graph, [](Workbench& b) { b.targets[2] = -100; }) == "nothing");
}

TEST_CASE("heads that don't divide the width are refused: dsx-E307") {
  CHECK_THROWS_WITH_AS((CausalAttention{10, 3}), "dsx-E307: 3 heads don't divide a width of 10", Error);
  CHECK_THROWS_WITH_AS((CausalAttention{10, 0}), "dsx-E307: 0 heads don't divide a width of 10", Error);
}

TEST_CASE("whole logits have no pullback: dsx-E402") {
  CHECK(refusal({7, 6}, [](Workbench& b) { b.weigh(all_logits({fan_out(b.given<Common>(0)), 1, {0, 7}, 7})); }) ==
        "dsx-E402: whole logits have no pullback; a loss reads them in chunks");
}

TEST_CASE("whole logits are the hidden rows times the table turned over") {
  test::on_one_rank([](const Mesh& mesh) {
    std::vector<double> logits;
    Workbench bench{mesh, {test::random({7, 6}), test::random({5, 6})}, {3, 4}, [&](Workbench& b) {
      const auto y = all_logits({fan_out(b.given<Common>(0)), 1, {0, 5}, 5});
      if (!b.pass().dry()) logits = b.read(y.node);
    }, 2, false};
    bench.run(false);
    REQUIRE(logits.size() == 35);
    for (Extent r = 0; r < 7; ++r)
      for (Extent v = 0; v < 5; ++v) {
        double sum = 0;
        for (Extent c = 0; c < 6; ++c) sum += bench.wholes[0][r * 6 + c] * bench.wholes[1][v * 6 + c];
        CHECK(logits[r * 5 + v] == doctest::Approx(sum).epsilon(1e-12));
      }
    return 0;
  });
}
