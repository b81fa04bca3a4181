// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
/// Mixtures of experts: gradients against central differences on one rank and on two; what must equal a layer without experts; refusals.
#include "support/experts.hpp"

#include <dsx/moe/dropless.hpp>
#include <dsx/moe/top_k.hpp>
#include <dsx/nn/mlp.hpp>
#include <dsx/nn/norm.hpp>
#include <dsx/nn/sequential.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::Numbered;
using test::Workbench;

namespace {

constexpr Extent width = 6;

struct Case {
  std::string name;
  std::vector<Parameter> parameters;
  Workbench::Graph graph;
};

template <class L>
Case of(std::string name, const L& layer) {
  const Numbered<L> numbered{{7, width}, layer};
  return {std::move(name), numbered.parameters, [numbered](Workbench& b) {
            const auto x = b.given<Common>(0);
            b.weigh(numbered.layer(x) + x);
          }};
}

Mlp mlp() { return {width, 5, Gelu::erf}; }

/// Runs a layer among experts twice, recomputed.
template <class L>
struct Again {
  L layer;
  void parts(auto& visit) const { visit("", layer); }
  Value<Common> operator()(Value<Common> x) const {
    return x.pass->recompute([l = layer](Value<Common> v) { return l(v); }, x);
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  all.push_back(of("two of four experts", Experts{4, Dropless<2>{.width = width, .experts = 4}, mlp()}));
  all.push_back(of("two of four, not renormalised", Experts{4, Dropless<2>{.width = width, .experts = 4, .renormalised = false}, mlp()}));
  all.push_back(of("one of nine, some without tokens", Experts{9, Dropless<1>{.width = width, .experts = 9, .z_loss = 0.01}, mlp()}));
  for (const Drop drop : {Drop::by_position, Drop::by_choice, Drop::by_probability, Drop::at_random})
    all.push_back(of("three of four experts with two seats, dropped in way " + std::to_string(int(drop)),
                     Experts{4, TopK<3>{.width = width, .experts = 4, .capacity_factor = 0.3, .least_capacity = 2, .drop = drop}, mlp()}));
  all.push_back(of("Switch with both losses", Experts{3, TopK<1>{.width = width, .experts = 3, .balance = {.weight = 0.5}, .z_loss = 0.1}, mlp()}));
  all.push_back(of("GShard's loss of first choices",
                   Experts{4, TopK<2>{.width = width, .experts = 4, .balance = {.weight = 0.5, .first_choice = true}}, mlp()}));
  all.push_back(of("a balance loss by sequence",
                   Experts{4, Dropless<2>{.width = width, .experts = 4, .balance = {.weight = 0.5, .by_sequence = true}}, mlp()}));
  all.push_back(of("dropout among experts", Experts{4, Dropless<2>{.width = width, .experts = 4}, Chain{mlp(), Dropped{0.4}}}));
  all.push_back(of("recomputed experts", Again{Experts{4, TopK<2>{.width = width, .experts = 4, .drop = Drop::at_random, .balance = {.weight = 0.5}},
                                                       Chain{mlp(), Dropped{0.4}}}}));
  all.push_back(of("experts that recompute", Experts{4, Dropless<2>{.width = width, .experts = 4}, Again{Chain{mlp(), Dropped{0.4}}}}));
  all.push_back(of("a shared expert", SharedExpert{mlp(), Experts{4, Dropless<2>{.width = width, .experts = 4}, mlp()}}));
  all.push_back(of("a residual expert", ResidualExpert{width, mlp(), Experts{4, Dropless<1>{.width = width, .experts = 4}, mlp()}}));
  all.push_back(of("one expert for all", Experts{1, Dense{}, mlp()}));
  all.push_back(of("biases of experts", Experts{4, Dropless<1>{.width = width, .experts = 4}, Chain{Bias{width}, Linear{width, width}}}));
  return all;
}

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
  for (const Case& c : cases()) {
    INFO(c.name);
    const Answer one = test::on_one_rank([&](const Mesh& mesh) { return check(mesh, c); });
    for (const Answer& two : test::on_ranks({.tensor = 2, .token_split = token_split}, [&](const Mesh& mesh) { return check(mesh, c); })) {
      CHECK(two.error < 1e-7);
      CHECK(std::abs(two.loss - one.loss) < 1e-12);
      for (Slot s = 0; s < one.gradients.size(); ++s) CHECK(test::furthest(two.gradients[s], one.gradients[s]) < 1e-12);
    }
  }
}

/// The loss and gradients of a layer on one rank, after `change`.
template <class L>
Answer answer_of(const L& layer, const std::function<void(Workbench&)>& change = [](Workbench&) {}) {
  const Case c = of("", layer);
  return test::on_one_rank([&](const Mesh& mesh) {
    Workbench bench{mesh, c.parameters, {3, 4}, c.graph};
    change(bench);
    Answer answer{.loss = bench.run(true)};
    for (Slot s = 0; s < c.parameters.size(); ++s) answer.gradients.push_back(bench.gradient(s));
    return answer;
  });
}
/// All experts as the first.
void make_alike(Workbench& b) {
  for (Slot s = 0; b.has(s); ++s) {
    const Held& h = b.held(s);
    const Extent each = h.weight.size() / h.stack;
    for (Extent i = each; i < h.weight.size(); ++i) h.weight.pointer<double>()[i] = h.weight.pointer<double>()[i - each];
  }
}

std::string refusal(const auto& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing";
}

}  // namespace

TEST_CASE("gradients of experts, routers and their losses equal central differences on one rank") {
  for (const Case& c : cases()) {
    INFO(c.name);
    CHECK(test::on_one_rank([&](const Mesh& mesh) { return check(mesh, c).error; }) < 1e-7);
  }
}
TEST_CASE("experts cut by the tensor axis equal whole ones") { check_on_two_ranks(false); }
TEST_CASE("experts behind a stream split by tokens see all tokens") { check_on_two_ranks(true); }

TEST_CASE("one expert with a router is the layer itself") {
  const auto same_weights = [](Workbench& b) {
    Slot last = 0;
    while (b.has(last + 1)) ++last;
    for (Slot s = 1; s <= last; ++s)
      for (Extent i = 0; i < b.held(s).weight.size(); ++i) b.held(s).weight.pointer<double>()[i] = std::sin(double(100 * (last - s) + i));
  };
  const Answer plain = answer_of(mlp(), same_weights);
  const Answer routed = answer_of(Experts{1, Dropless<1>{.width = width, .experts = 1}, mlp()}, same_weights);
  CHECK(std::abs(plain.loss - routed.loss) < 1e-13);
  CHECK(test::furthest(plain.gradients[0], routed.gradients[0]) < 1e-13);
  for (Slot s = 1; s < plain.gradients.size(); ++s) CHECK(test::furthest(plain.gradients[s], routed.gradients[s + 1]) < 1e-13);
}
TEST_CASE("identical experts answer as one, wherever tokens go, as long as weights add up to 1") {
  const Answer all = answer_of(Experts{4, Dropless<3>{.width = width, .experts = 4}, mlp()}, make_alike);
  const Answer some = answer_of(Experts{4, Dropless<2>{.width = width, .experts = 4}, mlp()}, make_alike);
  CHECK(std::abs(all.loss - some.loss) < 1e-13);
  CHECK(test::furthest(all.gradients[0], some.gradients[0]) < 1e-12);
  for (const double g : all.gradients[1]) CHECK(std::abs(g) < 1e-13);  // a router that changes nothing
}
TEST_CASE("room for all is no limit") {
  const Answer free = answer_of(Experts{4, Dropless<2>{.width = width, .experts = 4}, mlp()});
  for (const Drop drop : {Drop::by_position, Drop::by_choice, Drop::by_probability, Drop::at_random}) {
    const Answer roomy = answer_of(Experts{4, TopK<2>{.width = width, .experts = 4, .capacity_factor = 100, .drop = drop}, mlp()});
    CHECK(roomy.loss == free.loss);
    CHECK(roomy.gradients == free.gradients);
  }
}
TEST_CASE("a plan of experts holds what routers may send, not what they send") {
  const Experts layer{4, TopK<2>{.width = width, .experts = 4, .capacity_factor = 0.5, .least_capacity = 1}, mlp()};
  const Case c = of("", layer);
  test::on_one_rank([&](const Mesh& mesh) {
    Workbench bench{mesh, c.parameters, {3, 4}, c.graph, 9};
    return bench.run(true);  // arenas are as large as the dry run says: a byte more throws
  });
}

TEST_CASE("logits that aren't numbers are refused by row: dsx-E345") {
  const auto spoil = [](Workbench& b) { b.held(0).weight.at<double>(4, 2) = NAN; };
  CHECK(refusal([&] { answer_of(Experts{4, Dropless<2>{.width = width, .experts = 4}, mlp()}, spoil); }) ==
        "dsx-E345: row 4 of a micro-batch (number 104 of the step) has router logits that aren't numbers");
}
TEST_CASE("capacities without a seat are refused: dsx-E346") {
  for (const double factor : {0.0, -1.0, double(NAN)})
    CHECK(refusal([&] {
            answer_of(Experts{4, TopK<2>{.width = width, .experts = 4, .capacity_factor = factor}, mlp()});
          }).starts_with("dsx-E346: a capacity factor of "));
}
TEST_CASE("fewer experts than choices are refused: dsx-E347") {
  CHECK(refusal([&] { answer_of(Experts{2, Dropless<3>{.width = width, .experts = 2}, mlp()}); }) ==
        "dsx-E347: a router chooses 3 of 2 experts; it takes at least 1, at most all, and no more than 64");
}
TEST_CASE("routers and experts that don't fit are refused: dsx-E348") {
  CHECK(refusal([&] { answer_of(Experts{4, Dropless<1>{.width = width, .experts = 3}, mlp()}); }) ==
        "dsx-E348: a router for 3 experts stands before 4");
  CHECK(refusal([&] { answer_of(Experts{2, Dense{}, mlp()}); }) == "dsx-E348: Dense sends all tokens to one expert, and there are 2");
  CHECK(refusal([&] { (void)Experts{0, Dense{}, mlp()}; }) == "dsx-E348: Experts of none; the least is 1");
  CHECK(refusal([&] { (void)Experts{2, Dense{}, Experts{3, Dense{}, mlp()}}; }) ==
        "dsx-E348: parameter experts.up.weight of an expert is a stack of 3 already; experts don't nest");
  CHECK(refusal([&] { answer_of(Experts{4, Dropless<1>{.width = 5, .experts = 4}, mlp()}); }) ==
        "dsx-E302: a value of 6 columns meets a router for 5 columns");
}
TEST_CASE("a stack of weights outside of experts is refused: dsx-E349") {
  Linear stacked{width, width};
  stacked.weight.stack = stacked.bias.stack = 3;
  CHECK(refusal([&] { answer_of(stacked); }) ==
        "dsx-E349: a stack of 3 weights meets rows in 1 groups; a layer of experts runs within Experts, on its router's rows");
  Bias bias{width};
  bias.bias.stack = 2;
  CHECK(refusal([&] { answer_of(bias); }).starts_with("dsx-E349: a stack of 2 weights"));
}
