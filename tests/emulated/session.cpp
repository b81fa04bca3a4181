// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A session whose place is a GPU, emulated here: its memory, its stream, the way of a kernel from session.launch() to the device, weights,
/// and steps of a trainer, which equal the CPU's.
///
///     Session session{self_transport(), Place::cuda};
#ifndef DSX_NATIVE_CUDA
#include "../support/cuda_emulation.hpp"

#include "../../kernels/cuda/adamw.cu"
#include "../../kernels/cuda/gelu.cu"
#include "../../kernels/cuda/layer_norm.cu"

#include "../support/emulated_device.hpp"
#endif

#include <dsx/dsx.hpp>

#include <dsx/place/event.hpp>
#include <dsx/tensor/tensor.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

struct Doubled {
  static auto value(auto x) { return 2 * x; }
  static auto derivative(auto) { return 2; }
};

template <class F>
int number_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.number();
  }
  return 0;
}

std::vector<double> values_of(const Session& session, const View& v) {
  std::vector<double> values;
  session.read(v, [&](View here) {
    dispatch(here.element, [&](auto zero) {
      for (const auto e : here.as<decltype(zero)>()) values.push_back(double(e));
    });
  });
  return values;
}
void set_values(const Session& session, const View& v, double first, double step) {
  session.edit(v, [&](View here) {
    dispatch(here.element, [&](auto zero) {
      using T = decltype(zero);
      for (Extent i = 0; i < here.size(); ++i) here.pointer<T>()[i] = T(Wide<T>(first + step * double(i % 97)));
    });
  });
}

/// The largest difference, relative for what is larger than 1.
double distance(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (const double d = std::abs(a[i] - b[i]) / std::max(1.0, std::abs(a[i])); !(d <= worst)) worst = d;
  return worst;
}

/// What `use(session)` returns on a GPU and on the CPU.
template <class Use>
void compare_places(double tolerance, const Use& use) {
  Session here{self_transport()}, there{self_transport(), Place::cuda};
  CHECK(distance(use(here), use(there)) <= tolerance);
}

}  // namespace

TEST_CASE("a session on a GPU keeps its memory there, zeroed, and keeps code of the host out") {
  Session session{self_transport(), Place::cuda};
  CHECK(session.place() == Place::cuda);
  CHECK(session.compute().place() == Place::cuda);
  const View kept = session.memory.keep(Category::weights, {5, 7}, Element::f32);
  session.memory.scratch.reserve(1'024), session.memory.carried.reserve(1'024);
  const ScratchScope scope{session.memory};
  const View stacked = session.memory.scratch.take({3, 3}, Element::f32), next = session.memory.scratch.take({3, 3}, Element::f32);
  const View pooled = session.memory.carried.take({3, 3}, Element::f32);
  for (const View& v : {kept, stacked, next, pooled, kept.rows({1, 3}), kept.part({4, 9}), kept.reshaped({7, 5})}) {
    CHECK(v.place == Place::cuda);
    CHECK(number_of([&] { v.pointer<float>(); }) == 806);
    CHECK(number_of([&] { v.as<float>(); }) == 806);
    CHECK(number_of([&] { v.at<float>(0, 0); }) == 806);
  }
  CHECK(next.address<std::byte>() - stacked.address<std::byte>() == 256);
  CHECK_THROWS_WITH_AS(kept.pointer<float>(), doctest::Contains("5 x 7 f32 elements that lie on a GPU"), Error);
  CHECK(number_of([&] { Tensor<float>{kept}; }) == 806);
  CHECK(number_of([&] { session.launch(kernels::map<Doubled>, kept, kept); }) == 806);
  CHECK(values_of(session, kept) == std::vector<double>(35));
  set_values(session, kept, 1, 1);
  CHECK(values_of(session, kept.part({4, 6})) == std::vector<double>{5, 6});
  session.memory.carried.give(pooled);
  CHECK(session.memory.tally(Category::carried).now == 0);
  session.memory.give_back(Category::weights, kept);
  CHECK(session.memory.tally(Category::weights).now == 0);
}

TEST_CASE("beside a GPU what rests on the host is the host's, and what runs there gets the host's scratch") {
  Session session{self_transport(), Place::cuda};
  const View there = session.memory.keep(Category::weights, {5, 7}, Element::f32);
  const View here = session.memory.keep(Category::state, {5, 7}, Element::f32, Tier::host);
  CHECK(here.place == Place::cpu);
  CHECK(values_of(session, here) == std::vector<double>(35));
  set_values(session, there, 0, 1);
  session.move(there, here);
  CHECK(values_of(session, here) == values_of(session, there));
  session.memory.host_scratch.reserve(1'024);
  {
    const HostScope host{session};
    const ScratchScope scope{session.memory};
    const View doubled = session.memory.scratch.take(here.shape, here.element);
    CHECK(doubled.place == Place::cpu);
    session.launch(kernels::add, here, here, doubled);
    session.move(doubled, there);
    CHECK(session.memory.tally(Category::scratch, Tier::host).now == round_up(here.bytes(), 64));
    CHECK(session.memory.tally(Category::scratch).now == 0);
  }
  for (const double v : values_of(session, here)) CHECK(values_of(session, there)[Extent(v)] == 2 * v);
  CHECK(number_of([] { Session{self_transport(), Place::cuda, {.device_bytes = 1_MiB}}; }) == 818);
}

#ifndef DSX_NATIVE_CUDA
TEST_CASE("a session on a GPU gives everything back at its end") {
  const auto& device = emulation::Device::now();
  {
    Session session{self_transport(), Place::cuda};
    const View v = session.memory.keep(Category::weights, {5, 7}, Element::f32);
    session.memory.gathered.reserve(4'096);
    set_values(session, v, 0, 1);
    CHECK(device.streams.size() == 1);
    CHECK(device.blocks.size() == 3);  // one of the stream
    CHECK(device.pinned.empty());
  }
  CHECK(device.streams.empty());
  CHECK(device.blocks.empty());
}

TEST_CASE("an emulated stream works when somebody waits, and in its order") {
  Stream first{Place::cuda}, second{Place::cuda};
  int a = 1, b = 0, c = 0;
  Event event{Place::cuda};
  CHECK(event.passed());
  copy(&b, &a, sizeof a, first);
  event.record(first);
  second.wait(event);
  copy(&c, &b, sizeof b, second);
  CHECK(b == 0);
  CHECK_FALSE(event.passed());
  CHECK(event.passed());
  CHECK(b == 1);
  CHECK(c == 0);
  second.synchronize();
  CHECK(c == 1);
}
#endif

TEST_CASE("views are copied between host and GPU, and refused where they don't fit") {
  Stream stream{Place::cuda}, on_cpu{Place::cpu};
  std::vector<float> in{1, 2, 3, 4, 5, 6}, out(6);
  const View from{in.data(), {2, 3}, Element::f32}, to{out.data(), {3, 2}, Element::f32};
  const Block block{resource(Place::cuda), from.bytes()}, pinned{resource(Place::cuda, Tier::host), from.bytes()};
  const View there{block.data(), {2, 3}, Element::f32, Place::cuda, nullptr}, between{pinned.data(), {2, 3}, Element::f32};
  copy(there, from, stream);
  copy(between, there, stream);
  copy(to, between, stream);
  stream.synchronize();
  CHECK(out == in);
  CHECK(between.as<float>()[5] == 6);
  CHECK(resource(Place::cuda, Tier::host).place() == Place::cpu);
  CHECK(resource(Place::cuda, Tier::host).pinned());
  CHECK(resource(Place::cuda).place() == Place::cuda);
  CHECK(number_of([&] { copy(there, from, on_cpu); }) == 807);
  CHECK(number_of([&] { copy(to, there, on_cpu); }) == 807);
  CHECK(number_of([&] { copy(there.rows({0, 1}), from, stream); }) == 301);
  View other = from;
  other.element = Element::i32;
  CHECK(number_of([&] { copy(there, other, stream); }) == 405);
  CHECK(number_of([] { resource(Place::cuda).allocate(64, 512); }) == 803);
  CHECK(number_of([] { resource(Place::cuda, Tier::host).allocate(64, 512); }) == 803);
}

TEST_CASE("a kernel that a session launches runs in its stream; without a stream, or over two places, it is refused") {
  compare_places(1e-5, [](Session& session) {
    const auto keep = [&](Shape s) { return session.memory.keep(Category::state, s, Element::f32); };
    const View x = keep({9, 40}), y = keep({9, 40}), z = keep({9, 40}), dx = keep({9, 40}), gain = keep({1, 40}), bias = keep({1, 40}),
               stats = keep({9, 2}), dgain = keep({1, 40}), dbias = keep({1, 40});
    set_values(session, x, -2, 0.04), set_values(session, gain, 0.5, 0.02), set_values(session, bias, -1, 0.05), set_values(session, dx, 9, 0);
    session.launch(kernels::layer_norm, x, gain, bias, 1e-5, y, stats);
    session.launch(kernels::gelu, y, z, Gelu::tanh);
    session.launch(kernels::gelu_pullback, y, z, Grad{z, true}, Gelu::tanh);
    session.launch(kernels::zero, dx);
    session.launch(kernels::layer_norm_inputs, x, gain, stats, z, Grad{dx, true});
    session.launch(kernels::layer_norm_weights, x, stats, z, Grad{dgain, false}, Grad{dbias, false});
    session.launch(kernels::copy, z, y);
    std::vector<double> all;
    for (const View& v : {y, stats, dx, dgain, dbias})
      for (const double e : values_of(session, v)) all.push_back(e);
    return all;
  });

  Session session{self_transport(), Place::cuda}, host{self_transport()};
  const View there = session.memory.keep(Category::state, {4, 4}, Element::f32), here = host.memory.keep(Category::state, {4, 4}, Element::f32);
  CHECK(number_of([&] { kernels::gelu(there, there, Gelu::tanh); }) == 807);
  CHECK(number_of([&] { host.launch(kernels::gelu, there, there, Gelu::tanh); }) == 807);
  {
    const LaunchScope scope{session.compute()};
    CHECK(number_of([&] { kernels::gelu(there, there, Gelu::tanh); }) == 0);
    CHECK(number_of([&] { host.launch(kernels::zero, there); }) == 807);
    CHECK(number_of([&] { kernels::zero(there); }) == 0);
  }
  CHECK(number_of([&] { kernels::zero(there); }) == 807);
  CHECK(number_of([&] { session.launch(kernels::gelu, there, here, Gelu::tanh); }) == 809);
  CHECK(number_of([&] { session.launch(kernels::gelu, here, there, Gelu::tanh); }) == 809);
  CHECK(number_of([&] { session.launch(kernels::adamw, kernels::AdamWStep{}, there, there, there, here, View{}); }) == 809);
  CHECK(number_of([&] { session.launch(kernels::scale, there, 2.0, there); }) == 405);
}

TEST_CASE("operands that don't fit are refused on a GPU as on the host") {
  for (const Place place : {Place::cpu, Place::cuda}) {
    Session session{self_transport(), place};
    const auto keep = [&](Shape s, Element e = Element::f32) { return session.memory.keep(Category::state, s, e); };
    const View x = keep({4, 8}), small = keep({3, 8}), narrow = keep({4, 8}, Element::bf16), row = keep({1, 8}), stats = keep({4, 2}),
               f64_stats = keep({4, 2}, Element::f64);
    const auto refused = [&](auto kernel, const auto&... arguments) { return number_of([&] { session.launch(kernel, arguments...); }); };
    CHECK(refused(kernels::gelu, x, small, Gelu::tanh) == 301);
    CHECK(refused(kernels::gelu, x, narrow, Gelu::tanh) == 405);
    CHECK(refused(kernels::gelu_pullback, x, x, Grad{small}, Gelu::tanh) == 301);
    CHECK(refused(kernels::layer_norm, x, row, row, 1e-5, small, stats) == 301);
    CHECK(refused(kernels::layer_norm, x, row, row, 1e-5, x, f64_stats) == 405);
    CHECK(refused(kernels::layer_norm_inputs, x, row, small, x, Grad{x}) == 301);
    CHECK(refused(kernels::layer_norm_weights, x, stats, x, Grad{row}, Grad{small}) == 301);
    CHECK(refused(kernels::adamw, kernels::AdamWStep{}, x, small, x, x, View{}) == 301);
    CHECK(refused(kernels::adamw, kernels::AdamWStep{}, x, x, x, narrow, View{}) == 405);
    // The host adds gradients of bf16 values up in f32 as well.
    CHECK(refused(kernels::gelu_pullback, narrow, narrow, Grad{x}, Gelu::tanh) == (place == Place::cpu ? 0 : 405));
    const View narrow_row = keep({1, 8}, Element::bf16);
    CHECK(refused(kernels::layer_norm_inputs, narrow, narrow_row, stats, narrow, Grad{x}) == (place == Place::cpu ? 0 : 405));
  }
}

TEST_CASE("ranks can't exchange buffers on a GPU yet, and all of them are told") {
  Session session{self_transport(), Place::cuda};
  const View there = session.memory.keep(Category::state, {2, 4}, Element::f32);
  CHECK(number_of([&] { session.world()->post({.verb = Verb::all_reduce, .in = there, .out = there}); }) == 507);
  CHECK(number_of([&] { launch_threads(2, [&](Session& s) { s.world()->post({.verb = Verb::all_reduce, .in = there, .out = there}); }); }) == 507);
}

TEST_CASE("AdamW on a GPU takes each step's own numbers, however many steps are enqueued before anybody waits") {
  for (const Element gradients : {Element::f32, Element::bf16})
    compare_places(2e-6, [&](Session& session) {
      const auto keep = [&](Element e) { return session.memory.keep(Category::state, {1, 333}, e); };
      const View master = keep(Element::f32), gradient = keep(gradients), first = keep(Element::f32), second = keep(Element::f32),
                 weights = keep(Element::bf16);
      set_values(session, master, -1, 0.02), set_values(session, gradient, 2, -0.05);
      for (int step = 1; step <= 5; ++step) {
        const kernels::AdamWStep numbers{.rate = 0.01 / step,
                                         .beta_2 = 0.95,
                                         .decay = 0.1,
                                         .scale = 0.5 * step,
                                         .correction_1 = 1 - std::pow(0.9, step),
                                         .correction_2 = 1 - std::pow(0.95, step)};
        session.launch(kernels::adamw, numbers, master, gradient, first, second, weights);
      }
      std::vector<double> all = values_of(session, master);
      for (const View& v : {first, second})
        for (const double e : values_of(session, v)) all.push_back(e);
      CHECK(distance(values_of(session, weights), values_of(session, master)) < 0.01);
      return all;
    });
}

namespace {

/// A unit of the model below: what it gives is its parameter, so that no batch has to reach the device.
struct Source {
  Parameter table;
  Source(Extent rows, Extent columns) : table{.shape = {rows, columns}, .init = {.deviation = 1}, .role = Role::table} {}
  void parts(auto& visit) const { visit("table", table); }

  struct Give : Operation {
    static constexpr const char* name = "give";
    Node y;
    Slot table;
    void forward(Pass& p) const { p.launch(kernels::copy, p.weight(table), p.view(y)); }
    void towards_inputs(Pass&) const {}
    void towards_weights(Pass& p) const { p.launch(kernels::copy, p.incoming(y), p.weight_gradient(table, Axes::none).view); }
  };
  Value<Common> operator()(Tokens tokens) const {
    const auto y = tokens.pass->make<Common>(table.shape.columns);
    tokens.pass->run(Give{{}, y.node, table.slot});
    return y;
  }
};
struct Hidden {
  LayerNorm norm;
  void parts(auto& visit) const { visit("norm", norm); }
  Value<Common> operator()(Value<Common> x) const { return gelu(norm(x)); }
};
/// Half the sum of squares, added up on the host, for no kernel on a GPU does: its gradient is the value.
struct Squares {
  struct Sum : Operation {
    static constexpr const char* name = "squares";
    Node y, sum;
    void forward(Pass& p) const {
      double total = 0;
      p.mesh().session().read(p.view(y), [&](View v) {
        for (const float e : v.as<float>()) total += 0.5 * double(e) * double(e);
      });
      p.mesh().session().edit(p.view(sum), [&](View v) { v.at<double>(0, 0) = total; });
    }
    void towards_inputs(Pass& p) const {
      p.mesh().session().read(p.incoming(sum), [](View weight) { CHECK(weight.at<double>(0, 0) == 1); });
      p.launch(kernels::copy, p.view(y), p.gradient(y).view);
    }
  };
  Counts counts(const Batch&) const { return {1}; }
  void operator()(Value<Common> y, const Counts&) const {
    const Node sum = y.pass->make_scalar(Element::f64);
    y.pass->run(Sum{{}, y.node, sum});
    y.pass->add_loss(sum, 1);
  }
};

constexpr Extent rows = 6, columns = 20;

std::vector<double> trained_on(Session& session) {
  const Mesh mesh{session, {}};
  Weights weights{mesh, Sequential{Source{rows, columns}, Hidden{LayerNorm{columns}}, Hidden{LayerNorm{columns}}}, Recipe{}};
  Trainer trainer{weights, AdamW{.rate = 0.01}, Squares{}, {.rows = rows, .clip = 0.5}};
  std::vector<MicroBatch> batch(1);
  batch[0].add(std::vector<int>(rows), std::vector<int>(rows), 0);
  std::vector<double> all;
  for (int step = 0; step < 3; ++step) {
    const Verdict verdict = trainer.step(batch);
    CHECK(verdict.loss > 0);
    CHECK(verdict.scale < 1);
    all.insert(all.end(), {verdict.loss, verdict.squared_norm});
  }
  for (const ParameterRecord& r : weights.records())
    for (const auto& tensor : {weights.weight<double>(r.path), weights.gradient<double>(r.path)}) all.insert(all.end(), tensor.begin(), tensor.end());
  std::vector<double> table = weights.weight<double>(weights.records().front().path);
  table[7] = std::numeric_limits<double>::quiet_NaN();
  weights.assign(weights.records().front().path, std::span<const double>{table});
  CHECK_THROWS_WITH_AS(trainer.step(batch), doctest::Contains("whose gradient isn't finite is"), Error);
  return all;
}

}  // namespace

TEST_CASE("weights begin, are assigned and are collected on a GPU as on the CPU") {
  compare_places(0, [](Session& session) {
    const Mesh mesh{session, {}};
    Weights weights{mesh, make_gpt2({.vocabulary = 50, .positions = 8, .width = 12, .heads = 2, .layers = 1}), Recipe{Bf16{}}};
    CHECK(weights.bundles().all().front().rest.place == session.place());
    const std::string path = weights.records()[1].path;
    std::vector<double> changed = weights.weight<double>(path);
    for (double& w : changed) w += 0.25;
    weights.assign(path, std::span<const double>{changed});
    std::vector<double> all;
    for (const ParameterRecord& r : weights.records())
      for (const double w : weights.weight<double>(r.path)) all.push_back(w);
    CHECK(weights.weight<float>(path)[3] == float(changed[3]));
    return all;
  });
}

TEST_CASE("a trainer's losses, norms, refusals and weights on a GPU equal the CPU's") { compare_places(1e-5, trained_on); }

TEST_CASE("the host looks at one element of a value on a GPU") {
  for (const Place place : {Place::cpu, Place::cuda}) {
    Session session{self_transport(), place};
    const Mesh mesh{session, {}};
    Lifetimes lives;
    Pass pass{mesh, lives, {}};
    pass.saved.reserve(1'024);
    std::vector<int> ids(1);
    pass.open({.ids = ids, .bound = 1}, 0, 0);
    const Node node = pass.make({.bound = 1, .live = 1}, 3, Element::f32);
    set_values(session, pass.view(node), 7, 1);
    CHECK(pass.peek(node, 0.0F) == 7);
  }
}
