// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
/// Every operation's pullback against central differences, on one rank and on two, in both forms of the residual stream.
#include "support/workbench.hpp"

#include <dsx/nn/linear.hpp>
#include <dsx/ops/add.hpp>
#include <dsx/ops/attention.hpp>
#include <dsx/ops/bias.hpp>
#include <dsx/ops/dropout.hpp>
#include <dsx/ops/embedding.hpp>
#include <dsx/ops/fan.hpp>
#include <dsx/ops/gelu.hpp>
#include <dsx/ops/layer_norm.hpp>
#include <dsx/ops/linear.hpp>
#include <dsx/ops/map.hpp>
#include <dsx/ops/rms_norm.hpp>
#include <dsx/ops/rope.hpp>
#include <dsx/ops/swiglu.hpp>
#include <dsx/ops/token_loss.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::Workbench;

namespace {

constexpr Split by_rows{Cut::rows}, by_columns{Cut::columns}, grouped{.cut = Cut::columns, .pieces = 3, .grain = 4, .lead = 2};

struct Case {
  std::string name;
  std::vector<Parameter> parameters;
  Workbench::Graph graph;
  bool same_on_two_ranks = true;  // a given Partial has a table for each rank
};

/// A user's own function of one number.
struct Softplus {
  static auto value(auto x) { return std::log(1 + std::exp(x)); }
  static auto derivative(auto x) { return 1 / (1 + std::exp(-x)); }
};

struct Wrong {
  static auto value(auto x) { return x * x; }
  static auto derivative(auto x) { return 2 * x + decltype(x)(1e-6); }
};

struct Two {
  Value<Common> a{}, b{};
  void values(auto&& visit) { visit(a), visit(b); }
};

Logits logits(Workbench& b, Value<Common> x, Slot table) {
  const Communicator& tensor = b.pass().tensor();
  const Parameter& p = b.parameter(table);
  return {fan_out(x), table, LocalPart{p, tensor.size(), tensor.rank()}.mine(), p.shape.rows};
}

/// Seven rows in two sequences everywhere.
std::vector<Case> cases(Extent ranks) {
  const auto r = [](Shape s, Split split = {}, float mean = 0) { return test::random(s, mean, split); };
  std::vector<Case> all;
  const auto add = [&](std::string name, std::vector<Parameter> parameters, Workbench::Graph graph, bool same = true) {
    all.push_back({std::move(name), std::move(parameters), std::move(graph), same});
  };
  add("fan_out", {r({7, 6})}, [](Workbench& b) { b.weigh(fan_out(b.given<Common>(0))); });
  add("fan_in", {r({7 * ranks, 6}, by_rows)}, [](Workbench& b) { b.weigh(fan_in(b.given<Partial>(0))); }, false);
  add("add", {r({7, 6}), r({7, 6})}, [](Workbench& b) {
    const auto x = b.given<Common>(0);
    b.weigh(x + b.given<Common>(1) + x);
  });
  add("scale of terms of a sum", {r({7 * ranks, 6}, by_rows)}, [](Workbench& b) {
    const auto x = b.given<Partial>(0);
    b.weigh(fan_in(scale(x, -1.5) + x));
  }, false);
  add("gelu by tanh", {r({7, 6}, by_columns)}, [](Workbench& b) { b.weigh(gelu(b.given<Sharded>(0))); });
  add("gelu by erf", {r({7, 6})}, [](Workbench& b) { b.weigh(gelu(b.given<Replicated>(0), Gelu::erf)); });
  add("swiglu of columns", {r({7, 12}, {Cut::columns, 2})}, [](Workbench& b) { b.weigh(swiglu(b.given<Sharded>(0))); }, false);
  add("swiglu behind a fused product", {r({7, 6}), r({6, 8}, {Cut::columns, 2}), r({4, 6}, by_rows)}, [](Workbench& b) {
    const auto x = b.given<Common>(0);
    b.weigh(x + fan_in(linear<op::MatmulRows>(swiglu(linear<op::MatmulColumns>(fan_out(x), b.parameter(1))), b.parameter(2))));
  });
  add("a user's function", {r({7, 6})}, [](Workbench& b) {
    const auto x = b.given<Common>(0);
    b.weigh(map<Softplus>(x) + x);
  });
  add("dropout", {r({7, 6})}, [](Workbench& b) { b.weigh(dropout(b.given<Common>(0), 0.4) + dropout(b.given<Common>(0), 0.2)); });
  add("dropout of whole rows on every rank", {r({7, 6})}, [](Workbench& b) { b.weigh(dropout(fan_out(b.given<Common>(0)), 0.4)); });
  add("bias of the residual stream", {r({7, 6}), r({1, 6})}, [](Workbench& b) { b.weigh(add_bias(b.given<Common>(0), b.parameter(1))); });
  add("bias of columns", {r({7, 6}, by_columns), r({1, 6}, by_columns)},
      [](Workbench& b) { b.weigh(add_bias(b.given<Sharded>(0), b.parameter(1))); });
  add("bias of whole rows", {r({7, 6}), r({1, 6})}, [](Workbench& b) { b.weigh(add_bias(b.given<Replicated>(0), b.parameter(1))); });
  add("layer norm of the residual stream", {r({7, 6}), r({1, 6}, {}, 1), r({1, 6})}, [](Workbench& b) {
    const auto x = b.given<Common>(0);
    b.weigh(layer_norm(x, b.parameter(1), b.parameter(2)) + x);
  });
  add("layer norm of whole rows", {r({7, 6}), r({1, 6}, {}, 1), r({1, 6})}, [](Workbench& b) {
    b.weigh(layer_norm(b.given<Replicated>(0), b.parameter(1), b.parameter(2), 1e-2));
  });
  add("rms norm of the residual stream", {r({7, 6}), r({1, 6}, {}, 1)}, [](Workbench& b) {
    const auto x = b.given<Common>(0);
    b.weigh(rms_norm(x, b.parameter(1)) + x);
  });
  add("rms norm of whole rows", {r({7, 6}), r({1, 6}, {}, 1)},
      [](Workbench& b) { b.weigh(rms_norm(b.given<Replicated>(0), b.parameter(1), 1e-2)); });
  add("a product that isn't cut", {r({7, 6}), r({6, 4}), r({1, 4})}, [](Workbench& b) {
    b.weigh(linear<op::Matmul>(b.given<Common>(0), b.parameter(1), &b.parameter(2)));
  });
  add("a product cut by columns", {r({7, 6}), r({6, 4}, by_columns), r({1, 4}, by_columns)}, [](Workbench& b) {
    b.weigh(linear<op::MatmulColumns>(fan_out(b.given<Common>(0)), b.parameter(1), &b.parameter(2)));
  });
  for (const Gelu form : {Gelu::tanh, Gelu::erf})
    add("a product with GELU behind it", {r({7, 6}), r({6, 4}, by_columns), r({1, 4}, by_columns)}, [form](Workbench& b) {
      b.weigh(linear<op::MatmulColumns>(fan_out(b.given<Common>(0)), b.parameter(1), &b.parameter(2), form));
    });
  add("a product with GELU and without bias", {r({7, 6}), r({6, 4})}, [](Workbench& b) {
    b.weigh(linear<op::Matmul>(b.given<Common>(0), b.parameter(1), nullptr, Gelu::tanh));
  });
  add("a product with a weight turned over", {r({7, 6}), r({4, 6}, by_rows), r({1, 4}, by_columns)}, [](Workbench& b) {
    b.weigh(linear<op::MatmulColumns>(fan_out(b.given<Common>(0)), b.parameter(1), &b.parameter(2), {}, true));
  });
  add("a product cut by rows", {r({7, 6}, by_columns), r({6, 4}, by_rows)}, [](Workbench& b) {
    b.weigh(fan_in(linear<op::MatmulRows>(b.given<Sharded>(0), b.parameter(1))));
  });
  add("a product with one weight twice", {r({7, 6}), r({6, 6})}, [](Workbench& b) {
    b.weigh(linear<op::Matmul>(linear<op::Matmul>(b.given<Common>(0), b.parameter(1)), b.parameter(1)));
  });
  add("attention of ragged sequences", {r({7, 36}, {Cut::columns, 3, 3})}, [](Workbench& b) {
    const Extent heads = b.pass().tensor().part(4).size();
    b.weigh(causal_attention(b.given<Sharded>(0), {heads, heads, 3}));
  });
  add("attention with dropout of its probabilities", {r({7, 36}, {Cut::columns, 3, 3})}, [](Workbench& b) {
    const Range heads = b.pass().tensor().part(4);
    const auto qkv = b.given<Sharded>(0);
    const auto drop = [heads](Value<Sharded> v) { return causal_attention(v, {heads.size(), heads.size(), 3, heads.begin}, 0.4); };
    b.weigh(drop(qkv)), b.weigh(b.pass().recompute([drop](Value<Sharded> v) { return drop(v) + drop(v); }, qkv), 1, 5);
  });
  add("attention of two query heads a key", {r({7, 24 * ranks}, by_columns)}, [ranks](Workbench& b) {
    const Extent here = 2 / ranks;
    b.weigh(causal_attention(b.given<Sharded>(0), ranks == 1 ? Heads{2 * here, here, 3} : Heads{6, 1, 3}));
  }, false);
  add("attention of four query heads on two keys, with rotary positions", {r({7, 32}, grouped)}, [](Workbench& b) {
    const Range keys = b.pass().tensor().part(2);
    const Heads heads{2 * keys.size(), keys.size(), 4, 2 * keys.begin};
    b.weigh(causal_attention(rope(b.given<Sharded>(0), heads), heads, 0.3));
  });
  add("rotary positions added to what they turn", {r({7, 32}, grouped)}, [](Workbench& b) {
    const Range keys = b.pass().tensor().part(2);
    const auto qkv = b.given<Sharded>(0);
    b.weigh(rope(qkv, {2 * keys.size(), keys.size(), 4}, {.base = 10, .amplitude = 1.5}) + qkv);
  }, false);
  add("lookup", {r({7, 6}, by_rows)}, [](Workbench& b) { b.weigh(fan_in(lookup(Tokens{&b.pass()}, b.parameter(0)))); });
  add("positions", {r({7, 6}), r({5, 6})}, [](Workbench& b) { b.weigh(add_positions(b.given<Common>(0), b.parameter(1))); });
  for (const Extent chunk : {Extent(1), Extent(3), Extent(7), Extent(100)})
    add("cross entropy in chunks of " + std::to_string(chunk), {r({7, 6}), r({7, 6}, by_rows)}, [chunk](Workbench& b) {
      const auto x = b.given<Common>(0);
      b.pass().add_loss(cross_entropy(logits(b, x, 1), chunk), 0.25);
      b.weigh(x, 0.125);
    });
  add("a table tied to its head", {r({7, 6}, by_rows)}, [](Workbench& b) {
    const Value<Common> x = fan_in(lookup(Tokens{&b.pass()}, b.parameter(0)));
    b.cut();
    b.pass().add_loss(cross_entropy(logits(b, x, 0), 4), 0.25);
  });
  add("values carried over three units", {r({7, 6}), r({6, 6}), r({6, 6})}, [](Workbench& b) {
    const auto x = b.given<Common>(0);
    b.cut();
    const auto y = gelu(linear<op::Matmul>(x, b.parameter(1)));
    b.weigh(y, 0.5, 9);
    b.cut();
    b.weigh(linear<op::Matmul>(y, b.parameter(2)) + x + y);
  });
  add("recompute of a flow of two values", {r({7, 6}), r({7, 6}), r({6, 6})}, [](Workbench& b) {
    const Two in{b.given<Common>(0), b.given<Common>(1)};
    const Two out = b.pass().recompute([&b](Two t) { return Two{gelu(linear<op::Matmul>(t.a, b.parameter(2))) + t.b, gelu(t.b)}; }, in);
    b.weigh(out.a), b.weigh(out.b + in.a, 1, 5);
  });
  add("recompute that hands one value through", {r({7, 6}), r({7, 6})}, [](Workbench& b) {
    const Two out = b.pass().recompute([](Two t) { return Two{gelu(t.a), t.b}; }, Two{b.given<Common>(0), b.given<Common>(1)});
    b.weigh(out.a + out.b), b.weigh(gelu(out.b), 1, 5);
  });
  add("recompute of an input that nothing but the replay reads again", {r({7, 6}), r({7, 6})}, [](Workbench& b) {
    const auto x = b.given<Common>(0) + b.given<Common>(1);
    b.cut();
    const auto y = b.pass().recompute([](Value<Common> v) { return gelu(scale(v, 2)); }, x);
    b.cut();
    b.weigh(b.pass().recompute([&b](Value<Common> v) { return b.pass().recompute([](Value<Common> w) { return gelu(scale(w, 0.5)); }, scale(v, 3)); },
                               y));
  });
  add("recompute with dropout on both sides of it", {r({7, 6}), r({6, 6})}, [](Workbench& b) {
    const auto x = dropout(b.given<Common>(0), 0.3);
    const auto y = b.pass().recompute([&b](Value<Common> v) { return dropout(linear<op::Matmul>(gelu(v), b.parameter(1)), 0.3); }, x);
    b.weigh(dropout(gelu(y), 0.3));
  });
  add("recompute within recompute, across units", {r({7, 6}), r({6, 6}), r({1, 6})}, [](Workbench& b) {
    const auto x = b.given<Common>(0);
    b.cut();
    const auto inner = [&b](Value<Common> v) { return dropout(add_bias(gelu(linear<op::Matmul>(v, b.parameter(1))), b.parameter(2)), 0.2); };
    const auto outer = [&b, inner](Value<Common> v) {
      const auto w = dropout(gelu(v), 0.2);
      return gelu(b.pass().recompute(inner, w)) + w;
    };
    const auto y = b.pass().recompute(outer, x);
    b.cut();
    b.weigh(b.pass().recompute(inner, y));
  });
  add("a block of a transformer, cut and recomputed",
      {r({7, 8}), r({1, 8}, {}, 1), r({1, 8}), r({8, 24}, {Cut::columns, 3, 4}), r({8, 8}, {Cut::rows, 1, 4}), r({1, 8})}, [](Workbench& b) {
        const auto x = b.given<Common>(0);
        b.cut();
        b.weigh(b.pass().recompute(
            [&b](Value<Common> v) {
              const Extent heads = b.pass().tensor().part(2).size();
              const auto qkv = linear<op::MatmulColumns>(fan_out(layer_norm(v, b.parameter(1), b.parameter(2))), b.parameter(3));
              return v +
                     dropout(add_bias(fan_in(linear<op::MatmulRows>(causal_attention(qkv, {heads, heads, 4}), b.parameter(4))), b.parameter(5)), 0.1);
            },
            x));
      });
  return all;
}

/// The distance from central differences, then the gradients and the loss themselves.
struct Answer {
  double error = 0, loss = 0;
  std::vector<std::vector<double>> gradients{};
};
Answer check(const Mesh& mesh, const Case& c) {
  Workbench bench{mesh, c.parameters, {3, 4}, c.graph};
  Answer answer{.error = bench.gradient_error()};
  answer.loss = bench.run(true);
  for (Slot s = 0; s < c.parameters.size(); ++s) answer.gradients.push_back(bench.gradient(s));
  return answer;
}

void check_on_two_ranks(bool token_split) {
  const std::vector<Case> alone = cases(1), together = cases(2);
  for (Extent i = 0; i < together.size(); ++i) {
    const Case& c = together[i];
    INFO(c.name);
    const Answer one = test::on_one_rank([&](const Mesh& mesh) { return check(mesh, alone[i]); });
    for (const Answer& two : test::on_ranks({.tensor = 2, .token_split = token_split}, [&](const Mesh& mesh) { return check(mesh, c); })) {
      CHECK(two.error < 1e-7);
      if (!c.same_on_two_ranks) continue;
      CHECK(std::abs(two.loss - one.loss) < 1e-12);
      for (Slot s = 0; s < one.gradients.size(); ++s)
        for (Extent e = 0; e < one.gradients[s].size(); ++e)
          if (const double difference = std::abs(two.gradients[s][e] - one.gradients[s][e]); !(difference < 1e-12))
            FAIL_CHECK("parameter ", s, ", element ", e, " is off by ", difference);
    }
  }
}

}  // namespace

TEST_CASE("each operation's gradient equals central differences on one rank") {
  for (const Case& c : cases(1)) {
    INFO(c.name);
    CHECK(test::on_one_rank([&](const Mesh& mesh) { return check(mesh, c).error; }) < 1e-7);
  }
}

TEST_CASE("each operation's gradient equals central differences on two tensor ranks, the stream whole on each") { check_on_two_ranks(false); }

TEST_CASE("each operation's gradient equals central differences on two tensor ranks, the stream split by tokens") { check_on_two_ranks(true); }

TEST_CASE("every case has the same bits where results are dropped and played again") {
  using enum OperationClass;
  Extent fewer = 0;
  const auto compare = [&](const Mesh& mesh, const Case& c, OperationClass classes) {
    Workbench kept{mesh, c.parameters, {3, 4}, c.graph};
    Workbench again{mesh, c.parameters, {3, 4}, [&](Workbench& b) {
      const auto all = [&](Tokens t) { return c.graph(b), t; };
      b.pass().recompute(classes, all, Tokens{&b.pass()});
    }};
    CHECK(kept.run(true) == again.run(true));
    for (Slot s = 0; s < c.parameters.size(); ++s) CHECK(kept.gradient(s) == again.gradient(s));
    return again.saved_bytes() < kept.saved_bytes();
  };
  for (const OperationClass classes : {norms, elementwise, norms | elementwise | sums}) {
    for (const Case& c : cases(1)) {
      INFO(c.name, ", classes ", int(classes));
      fewer += test::on_one_rank([&](const Mesh& mesh) { return compare(mesh, c, classes); });
    }
    for (const bool token_split : {false, true})
      for (const Case& c : cases(2)) {
        INFO(c.name, ", two ranks, classes ", int(classes));
        test::on_ranks({.tensor = 2, .token_split = token_split}, [&](const Mesh& mesh) { return compare(mesh, c, classes) ? 1 : 0; });
      }
  }
  CHECK(fewer > 0);
}

TEST_CASE("a wrong pullback is seen by central differences") {
  const Case c{"wrong", {test::random({7, 6})}, [](Workbench& b) { b.weigh(map<Wrong>(b.given<Common>(0))); }};
  CHECK(test::on_one_rank([&](const Mesh& mesh) { return check(mesh, c).error; }) > 1e-7);
}
