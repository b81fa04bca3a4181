// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Who looks on: an observer of operations, a read by the host, an evaluation; and losses of units in the middle.
#include "support/workbench.hpp"

#include <dsx/ops/add.hpp>
#include <dsx/ops/bias.hpp>
#include <dsx/ops/dropout.hpp>
#include <dsx/ops/gelu.hpp>
#include <dsx/ops/linear.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::Workbench;

namespace {

struct Diary : Observer {
  std::vector<std::string> lines{}, under_way{};
  double flops = 0;
  void before(const char* operation, Unit unit, Phase phase, const Cost& cost) override {
    lines.push_back(concat(phase == Phase::forward ? "forward " : "backward ", operation, " in ", unit));
    under_way.push_back(lines.back());
    flops += cost.flops;
  }
  void after(const char* operation, Unit unit, Phase phase, Pass&) override {
    CHECK(under_way.back() == concat(phase == Phase::forward ? "forward " : "backward ", operation, " in ", unit));
    under_way.pop_back();
  }
};

const std::vector<Parameter> input_and_weight{test::random({7, 6}), test::random({6, 4})};

}  // namespace

TEST_CASE("an observer sees every operation, forward in order and backward in reverse, with its cost") {
  test::on_one_rank([](const Mesh& mesh) {
    Workbench bench{mesh, input_and_weight, {3, 4}, [](Workbench& b) {
      const auto x = b.given<Common>(0);
      b.cut();
      b.weigh(gelu(linear<op::Matmul>(x, b.parameter(1))));
    }};
    Diary diary;
    bench.prepare = [&](Pass& p) { p.observer = &diary; };
    bench.run(true);
    const std::vector<std::string> expected{"forward given in 0",   "forward linear in 1", "forward gelu in 1",   "forward weigh in 1",
                                            "forward loss in 1",    "backward loss in 1",  "backward weigh in 1", "backward gelu in 1",
                                            "backward linear in 1", "backward given in 0"};
    CHECK(diary.lines == expected);
    CHECK(diary.flops == 3 * 2.0 * 7 * 6 * 4);  // once forward, twice backward
    return 0;
  });
}

TEST_CASE("an observer sees a recomputed part again, in backward") {
  test::on_one_rank([](const Mesh& mesh) {
    Workbench bench{mesh, input_and_weight, {3, 4}, [](Workbench& b) {
      b.weigh(b.pass().recompute([](auto v) { return gelu(v); }, b.given<Common>(0)));
    }};
    Diary diary;
    bench.prepare = [&](Pass& p) { p.observer = &diary; };
    bench.run(true);
    const std::vector<std::string> expected{"forward given in 0", "forward gelu in 0",   "forward weigh in 0",      "forward loss in 0",
                                            "backward loss in 0", "backward weigh in 0", "backward recompute in 0", "forward gelu in 0",
                                            "backward gelu in 0", "backward given in 0"};
    CHECK(diary.lines == expected);
    return 0;
  });
}

namespace {

/// An elementwise operation that says what it costs.
struct Costly : Operation {
  static constexpr const char* name = "costly";
  static constexpr OperationClass operation_class = OperationClass::elementwise;
  Node x, y;
  auto results() const { return std::array{y}; }
  Cost cost(Pass&) const { return {.flops = 5}; }
  void forward(Pass& p) const { p.launch(kernels::copy, p.view(x), p.view(y)); }
  void towards_inputs(Pass& p) const { p.launch(kernels::pass_on, p.incoming(y), p.gradient(x)); }
};

}  // namespace

TEST_CASE("an observer sees an operation of a class again in front of the first reader of what it gave, its cost too") {
  test::on_one_rank([](const Mesh& mesh) {
    Workbench bench{mesh, input_and_weight, {3, 4}, [](Workbench& b) {
      const auto two = [&b](Value<Common> x) {
        const auto y = b.pass().make<Common>(6);
        b.pass().run(Costly{{}, x.node, y.node});
        return linear<op::Matmul>(gelu(y), b.parameter(1));
      };
      b.weigh(b.pass().recompute(OperationClass::elementwise, two, b.given<Common>(0)));
    }};
    Diary diary;
    bench.prepare = [&](Pass& p) { p.observer = &diary; };
    bench.run(true);
    const std::vector<std::string> expected{"forward given in 0",  "forward costly in 0",  "forward gelu in 0",   "forward linear in 0",
                                            "forward weigh in 0",  "forward loss in 0",    "backward loss in 0",  "backward weigh in 0",
                                            "backward linear in 0", "forward gelu in 0",   "forward costly in 0", "backward gelu in 0",
                                            "backward costly in 0", "backward given in 0"};
    CHECK(diary.lines == expected);
    CHECK(diary.flops == 3 * 2.0 * 7 * 6 * 4 + 4 * 5);
    return 0;
  });
}

TEST_CASE("the host reads a value, and a dry run what was assumed") {
  std::vector<double> read;
  test::on_one_rank([&](const Mesh& mesh) {
    Workbench bench{mesh, input_and_weight, {3, 4}, [&](Workbench& b) {
      const auto x = b.given<Common>(0);
      read.push_back(b.pass().peek(x.node, 7.0));
      b.weigh(linear<op::Matmul>(x, b.parameter(1)));
    }};
    bench.run(true);
    CHECK(read == std::vector{7.0, 7.0, bench.wholes[0][0]});  // learning, counting, running
    return 0;
  });
}

TEST_CASE("an evaluation drops nothing out and gives the loss without dropout") {
  test::on_one_rank([](const Mesh& mesh) {
    const auto graph = [](double rate) { return [rate](Workbench& b) { b.weigh(dropout(gelu(dropout(b.given<Common>(0), rate)), rate)); }; };
    const std::vector<Parameter> input{test::random({7, 6})};
    Workbench training{mesh, input, {3, 4}, graph(0.5)}, evaluation{mesh, input, {3, 4}, graph(0.5), 2, false},
        without{mesh, input, {3, 4}, graph(0)};
    CHECK(evaluation.run(false) == without.run(false));
    CHECK(evaluation.run(false) != training.run(false));
    CHECK(training.run(false) == training.run(false));
    return 0;
  });
}

TEST_CASE("losses of several units add up by their weights, in a recomputed part once") {
  test::on_one_rank([](const Mesh& mesh) {
    const auto with = [&](double first, double second, double third) {
      Workbench bench{mesh, input_and_weight, {3, 4}, [=](Workbench& b) {
        const auto x = b.given<Common>(0);
        b.weigh(x, first, 1);
        b.cut();
        const auto y = b.pass().recompute([&b, second](Value<Common> v) {
          const auto w = gelu(v);
          b.weigh(w, second, 2);
          return w;
        }, x);
        b.cut();
        b.weigh(linear<op::Matmul>(y, b.parameter(1)), third, 3);
      }};
      const double loss = bench.run(true);
      CHECK(loss == bench.run(false));  // the replay of a part counts its loss no second time
      bench.run(true);
      return std::pair{loss, bench.gradient(0)};
    };
    const auto all = with(1, 0.5, 2), first = with(1, 0, 0), second = with(0, 1, 0), third = with(0, 0, 1);
    CHECK(all.first == doctest::Approx(first.first + 0.5 * second.first + 2 * third.first).epsilon(1e-12));
    for (Extent i = 0; i < 42; ++i)
      CHECK(all.second[i] == doctest::Approx(first.second[i] + 0.5 * second.second[i] + 2 * third.second[i]).epsilon(1e-12));
    return 0;
  });
}

TEST_CASE("dropout draws by row id: rows keep their fate when they move, and another step or unit draws anew") {
  test::on_one_rank([](const Mesh& mesh) {
    const auto zeros = [&](Extent units) {
      std::vector<bool> dropped;
      Workbench bench{mesh, {test::random({7, 6}, 5)}, {3, 4}, [&, units](Workbench& b) {
        const auto x = b.given<Common>(0);
        for (Extent u = 0; u < units; ++u) b.cut();
        const auto y = dropout(x, 0.5);
        if (!b.pass().dry())
          for (const double e : b.read(y.node)) dropped.push_back(e == 0);
        b.weigh(y);
      }};
      bench.run(true);
      return dropped;
    };
    const std::vector<bool> fate = zeros(0);
    CHECK(fate == zeros(0));
    CHECK(fate != zeros(1));
    const Extent count = Extent(std::count(fate.begin(), fate.end(), true));
    CHECK((count > 8 && count < 34));  // of 42 at one half
    return 0;
  });
}
