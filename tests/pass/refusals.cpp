// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a pass refuses, each by its number and with the values that don't fit.
#include "support/workbench.hpp"

#include <dsx/ops/add.hpp>
#include <dsx/ops/attention.hpp>
#include <dsx/ops/bias.hpp>
#include <dsx/ops/gelu.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::Workbench;

namespace {

const std::vector<Parameter> input_and_bias{test::random({7, 6}), test::random({1, 6})};

/// The number of the error that building or running a graph gives; 0: none.
int refusal(Degrees degrees, const Workbench::Graph& graph, bool recording = true) {
  try {
    test::on_ranks(degrees, [&](const Mesh& mesh) { return Workbench{mesh, input_and_bias, {3, 4}, graph, 2, recording}.run(recording); });
  } catch (const Error& error) {
    return error.number();
  }
  return 0;
}

/// Keys and values that lie elsewhere: here nothing is attended to.
struct Elsewhere : Attending {
  int calls = 0;
  Value<Sharded> attend(Value<Sharded> qkv, const Heads& heads) override {
    ++calls;
    return qkv.pass->make<Sharded>(heads.query * heads.dim);
  }
};

}  // namespace

TEST_CASE("a value that no loss depends on is refused in backward, and allowed where nothing is recorded: dsx-E402") {
  const auto graph = [](Workbench& b) {
    const auto x = b.given<Common>(0);
    (void)gelu(x);
    b.weigh(x);
  };
  CHECK(refusal({}, graph) == 402);
  CHECK(refusal({}, graph, false) == 0);
}

TEST_CASE("a parameter whose uses leave its gradient partial over different axes is refused on every rank: dsx-E403") {
  const auto graph = [](Workbench& b) {
    b.weigh(add_bias(b.given<Common>(0), b.parameter(1))), b.weigh(add_bias(b.given<Replicated>(0), b.parameter(1)));
  };
  CHECK(refusal({}, graph) == 0);
  CHECK(refusal({.tensor = 2}, graph) == 403);
}

TEST_CASE("a micro-batch of more rows than planned is refused: dsx-E304") {
  test::on_one_rank([](const Mesh& mesh) {
    Lifetimes lives;
    Pass pass{mesh, lives, {}};
    const std::vector<int> ids(5);
    CHECK_THROWS_WITH_AS(pass.open({.ids = ids, .bound = 4}, 0, 0), "dsx-E304: a micro-batch of 5 rows; the plan holds 4", Error);
    return 0;
  });
}

TEST_CASE("a pass that asks for more than its plan holds says how much: dsx-E401") {
  test::on_one_rank([](const Mesh& mesh) {
    Lifetimes lives;
    Pass pass{mesh, lives, {}};
    Binding none;
    pass.open({.bound = 4}, 0, 0), pass.enter(0, none);
    pass.saved.reserve(128);
    (void)pass.make<Common>(8);
    CHECK_THROWS_WITH_AS((void)pass.make<Common>(8), "dsx-E401: the plan holds 128 bytes, the run asks for 256", Error);
    return 0;
  });
}

TEST_CASE("a parameter that no parts() names is refused: dsx-E412") {
  const Parameter forgotten = vector_parameter(6);
  CHECK(refusal({}, [&](Workbench& b) { b.weigh(add_bias(b.given<Common>(0), forgotten)); }) == 412);
}

TEST_CASE("a pass that is recorded can't attend to a cache; one that isn't asks it: dsx-E408") {
  test::on_one_rank([](const Mesh& mesh) {
    Lifetimes lives;
    for (const bool recording : {true, false}) {
      Pass pass{mesh, lives, {.recording = recording}};
      Elsewhere cache;
      Binding none;
      pass.attending = &cache;
      pass.saved.reserve(4096);
      pass.open({.bound = 4}, 0, 0), pass.enter(0, none);
      const auto qkv = pass.make<Sharded>(18);
      if (recording)
        CHECK_THROWS_WITH_AS(causal_attention(qkv, {2, 2, 3}), "dsx-E408: a pass that is recorded for its gradient can't attend to a cache", Error);
      else CHECK(pass.shape(causal_attention(qkv, {2, 2, 3}).node).columns == 6);
      CHECK(cache.calls == (recording ? 0 : 1));
    }
    return 0;
  });
}

TEST_CASE("a pass that threw is abandoned and runs again") {
  test::on_one_rank([](const Mesh& mesh) {
    bool fails = false;
    Workbench bench{mesh, input_and_bias, {3, 4}, [&](Workbench& b) {
      const auto x = gelu(b.given<Common>(0));
      if (fails) throw std::runtime_error{"a user's layer"};
      b.weigh(add_bias(x, b.parameter(1)));
    }};
    const double loss = bench.run(true);
    fails = true;
    CHECK_THROWS_AS(bench.run(true), std::runtime_error);
    bench.pass().abandon();
    mesh.session().memory.scratch.pop(0);
    fails = false;
    CHECK(bench.run(true) == loss);
    return 0;
  });
}
