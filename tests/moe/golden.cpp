// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold gradient
/// Routers and whole layers against stored answers: choices, seats, weights, losses and gradients, in double.
#include "support/golden.hpp"
#include "support/experts.hpp"

#include <dsx/moe/dropless.hpp>
#include <dsx/moe/top_k.hpp>

#include <doctest/doctest.h>

#include <numeric>

using namespace dsx;
using test::Numbered;
using test::Workbench;

namespace {

/// What a router said, and the gradient of its logits under the losses that it was given.
struct Said {
  std::vector<int> chosen, places, counts;
  std::vector<double> weights, dlogits;
  std::vector<Extent> begin;
  double loss = 0;
};

/// Routes stored logits: the gate is the unit matrix, so that they are the values themselves.
template <class R>
Said route(const SafetensorsFile& file, const std::string& logits, R router) {
  const auto values = test::numbers(file, logits);
  const Extent experts = router.experts, tokens = values.size() / experts;
  router.gate.slot = 1;
  Said said;
  test::on_one_rank([&](const Mesh& mesh) {
    Workbench bench{mesh, {test::random({tokens, experts}), test::random({experts, experts})}, {tokens}, [&](Workbench& b) {
                      Pass& p = b.pass();
                      const auto x = b.given<Common>(0);
                      const Routes routes = router(x);
                      const ExpertRows order = expert_rows(p, x.node, routes);
                      // The weights need a reader, but only the router's own losses shall have a gradient.
                      const Value<Common> y{&p, combine(p, permute(p, x.node, order), order, routes.weights)};
                      b.weigh(y, 0);
                      if (p.dry()) return;
                      const auto all = [&](Node n) {
                        return std::vector<int>(p.view(n).pointer<std::int32_t>(), p.view(n).pointer<std::int32_t>() + p.view(n).size());
                      };
                      said.chosen = all(routes.chosen), said.counts = all(routes.counts), said.places = all(order.places),
                      said.weights = b.read(routes.weights);
                      said.begin = {order.rows.bounds().begin(), order.rows.bounds().end()};
                    }};
    std::copy(values.begin(), values.end(), bench.held(0).weight.pointer<double>());
    for (Extent i = 0; i < experts * experts; ++i) bench.held(1).weight.pointer<double>()[i] = i % (experts + 1) == 0 ? 1 : 0;
    said.loss = bench.run(true);
    said.dlogits = bench.gradient(0);
    return 0;
  });
  return said;
}

const SafetensorsFile& routers() {
  static const SafetensorsFile file{test::golden("moe/routers.safetensors")};
  return file;
}

/// Experts and weights as stored under `name`, and the slots among an expert's rows, where those lie in the order of tokens.
void check(const Said& said, const std::string& name, bool by_token = true) {
  INFO(name);
  CHECK(said.chosen == test::integers(routers(), name + ".expert"));
  CHECK(test::relative(said.weights, test::numbers(routers(), name + ".weight")) < 1e-14);
  const auto demand = test::integers(routers(), name + ".demand");
  const int seats = routers().contains(name + ".capacity") ? test::integers(routers(), name + ".capacity")[0] : 13;
  for (Extent e = 0; e < demand.size(); ++e) CHECK(said.counts[e] == std::min(demand[e], seats));
  const auto slots = test::integers(routers(), name + ".slot");
  for (Extent i = 0; by_token && i < slots.size(); ++i)
    if (const int e = said.chosen[i]; e >= 0) CHECK(said.places[i] - int(said.begin[Extent(e)]) == slots[i]);
  CHECK(std::abs(said.loss - test::numbers(routers(), name + ".aux_loss")[0]) < 1e-14);
}

constexpr Balance one{.weight = 1}, of_first{.weight = 1, .first_choice = true};

/// y = gelu(x up^T) down^T, as the stored layer has it.
struct Turned {
  Parameter up{{9, 6}}, down{{6, 9}};
  void parts(auto& visit) const { visit("up", up), visit("down", down); }
  Value<Common> operator()(Value<Common> x) const {
    return linear<op::Matmul>(linear<op::Matmul>(x, up, nullptr, Gelu::erf, true), down, nullptr, {}, true);
  }
};

/// The sum of a value times stored numbers.
struct Dot : Operation {
  Node y, loss;
  const std::vector<double>* numbers;
  void forward(Pass& p) const {
    const View from = p.view(y), to = p.view(loss);
    p.launch([&] { to.at<double>(0, 0) = std::inner_product(numbers->begin(), numbers->end(), from.pointer<double>(), 0.0); });
  }
  void towards_inputs(Pass& p) const {
    const View weight = p.incoming(loss);
    const Grad dy = p.gradient(y);
    p.launch([&] {
      for (Extent i = 0; i < numbers->size(); ++i) dy.view.pointer<double>()[i] = *weight.pointer<double>() * (*numbers)[i];
    });
  }
};

std::vector<double> transposed(const std::vector<double>& m, Extent rows) {
  const Extent columns = m.size() / rows;
  std::vector<double> t(m.size());
  for (Extent i = 0; i < m.size(); ++i) t[i % columns * rows + i / columns] = m[i];
  return t;
}

template <class R>
void check_layer(const std::string& name, const R& router) {
  INFO(name);
  const SafetensorsFile file{test::golden("moe/" + name + ".safetensors")};
  const auto numbers = [&](const std::string& n) { return test::numbers(file, n); };
  const Numbered layer{{13, 6}, Experts{4, router, Turned{}}};
  const std::vector<double> r = numbers("r");
  test::on_one_rank([&](const Mesh& mesh) {
    std::vector<double> y;
    Workbench bench{mesh, layer.parameters, {13}, [&](Workbench& b) {
                      const auto out = layer.layer(b.given<Common>(0));
                      const Node loss = b.pass().make_scalar(Element::f64);
                      b.pass().run(Dot{{}, out.node, loss, &r});
                      b.pass().add_loss(loss, 1);
                      if (!b.pass().dry()) y = b.read(out.node);
                    }};
    const std::vector<double> values[] = {numbers("x"), transposed(numbers("gate"), 4), numbers("w1"), numbers("w2")};
    for (Slot s = 0; s < 4; ++s) std::copy(values[s].begin(), values[s].end(), bench.held(s).weight.pointer<double>());
    CHECK(test::relative(bench.run(true), numbers("loss")[0]) < 1e-13);
    CHECK(test::relative(y, numbers("y")) < 1e-13);
    CHECK(test::relative(bench.gradient(0), numbers("grad.x")) < 1e-13);
    CHECK(test::relative(bench.gradient(1), transposed(numbers("grad.gate"), 4)) < 1e-13);
    CHECK(test::relative(bench.gradient(2), numbers("grad.w1")) < 1e-13);
    CHECK(test::relative(bench.gradient(3), numbers("grad.w2")) < 1e-13);
    return 0;
  });
}

}  // namespace

TEST_CASE("routers with a capacity choose, drop and weigh as the golden ones") {
  const auto of = [](auto router) { return route(routers(), "logits", router); };
  check(of(TopK<1>{.width = 4, .experts = 4, .least_capacity = 2, .balance = one}), "top1");
  check(of(TopK<1>{.width = 4, .experts = 4, .capacity_factor = 1.5, .least_capacity = 2, .balance = one}), "top1.capacity_1.5");
  check(of(TopK<2>{.width = 4, .experts = 4, .least_capacity = 2, .drop = Drop::by_choice, .balance = of_first}), "top2", false);
  check(of(TopK<2>{.width = 4, .experts = 4, .capacity_factor = 0.5, .least_capacity = 1, .drop = Drop::by_choice, .balance = of_first}),
        "top2.capacity_0.5", false);
  check(of(TopK<2>{.width = 4, .experts = 4, .least_capacity = 2, .balance = one}), "top2.position");
  check(of(TopK<2>{.width = 4, .experts = 4, .least_capacity = 2, .drop = Drop::by_probability, .balance = one}), "top2.probs");
  check(of(TopK<3>{.width = 4, .experts = 4, .least_capacity = 2, .balance = one}), "top3.position");
  check(of(TopK<3>{.width = 4, .experts = 4, .least_capacity = 2, .drop = Drop::by_probability, .balance = one}), "top3.probs");
}

TEST_CASE("routers without a capacity choose, order and weigh as the golden ones, with ties and an expert nobody chooses") {
  const auto compare = [](const std::string& logits, const std::string& name, auto router) {
    router.balance = one;
    const Said said = route(routers(), logits, router);
    check(said, name);
    const auto offsets = test::integers(routers(), name + ".offsets"), tokens = test::integers(routers(), name + ".source_token"),
               choices = test::integers(routers(), name + ".source_choice");
    CHECK(std::vector<int>(said.begin.begin(), said.begin.end()) == offsets);
    const Extent k = said.places.size() / (test::numbers(routers(), logits).size() / 4);
    for (Extent row = 0; row < tokens.size(); ++row) CHECK(said.places[Extent(tokens[row]) * k + Extent(choices[row])] == int(row));
    router.balance = {}, router.z_loss = 1;
    CHECK(test::relative(route(routers(), logits, router).loss, test::numbers(routers(), name + ".z_loss")[0]) < 1e-14);
  };
  compare("logits", "dropless.k1.raw", Dropless<1>{.width = 4, .experts = 4});
  compare("logits", "dropless.k1.normalised", Dropless<1>{.width = 4, .experts = 4, .renormalised = true});
  compare("logits", "dropless.k2.raw", Dropless<2>{.width = 4, .experts = 4, .renormalised = false});
  compare("logits", "dropless.k2.normalised", Dropless<2>{.width = 4, .experts = 4});
  compare("logits", "dropless.k3.raw", Dropless<3>{.width = 4, .experts = 4, .renormalised = false});
  compare("logits", "dropless.k3.normalised", Dropless<3>{.width = 4, .experts = 4});
  compare("empty_expert.logits", "empty_expert.dropless.k2", Dropless<2>{.width = 4, .experts = 4});
  compare("ties.logits", "ties.dropless.k2", Dropless<2>{.width = 4, .experts = 4});
}

TEST_CASE("the auxiliary losses have the golden gradients") {
  const auto slopes = [](auto router) { return route(routers(), "logits", router).dlogits; };
  CHECK(test::relative(slopes(Dropless<1>{.width = 4, .experts = 4, .balance = one}), test::numbers(routers(), "aux_loss.k1.grad.logits")) < 1e-13);
  CHECK(test::relative(slopes(Dropless<2>{.width = 4, .experts = 4, .balance = one}), test::numbers(routers(), "aux_loss.k2.grad.logits")) < 1e-13);
  CHECK(test::relative(slopes(Dropless<2>{.width = 4, .experts = 4, .z_loss = 1}), test::numbers(routers(), "z_loss.grad.logits")) < 1e-13);
}

TEST_CASE("whole layers have the golden loss and gradients") {
  check_layer("layer_k1_raw", Dropless<1>{.width = 6, .experts = 4, .balance = {.weight = 0.01}});
  check_layer("layer_k2_normalised", Dropless<2>{.width = 6, .experts = 4, .balance = {.weight = 0.01}});
}
