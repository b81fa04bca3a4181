// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// dsx's half of the comparison moe: a layer of experts, or a dense one, that trains when it is asked to; or the moves of rows beside
/// plain copies. One JSON line an answer.
///
///     moe layer EXPERTS CHOICES TOKENS WIDTH HIDDEN THREADS    # "step": forward, backward, SGD; else a line: forward and backward
///     moe moves CHOICES TOKENS WIDTH THREADS                   # a line: each kernel once, each plain copy once
///
/// With one expert and one choice the layer is dense. Numbers are drawn so that another program can draw the same (drawn()).
#include "copies.hpp"

#include <dsx/kernels/threads.hpp>
#include <dsx/moe/dropless.hpp>
#include <dsx/nn/experts.hpp>
#include <dsx/nn/mlp.hpp>
#include <dsx/optim/sgd.hpp>
#include <dsx/place/memory.hpp>
#include <dsx/train/trainer.hpp>
#include <dsx/version.hpp>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>
#include <numeric>

namespace {

using dsx::Extent;
using dsx::View;

constexpr double rate = 1e-3;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

#ifdef __clang__
constexpr const char* compiler = __VERSION__;
#else
constexpr const char* compiler = "g++ " __VERSION__;
#endif

void answer_ready() {
  std::printf("{\"ready\": true, \"version\": \"%s\", \"compiler\": \"%s\", \"products\": \"%s\"}\n", dsx::version, compiler,
              std::string(name_of(dsx::kernels::matmul_library(dsx::Element::f32))).c_str());
  std::fflush(stdout);
}

/// Uniform in (0, 1): murmur3's last mixing of index and stream.
double drawn(std::uint32_t stream, std::uint32_t index) {
  std::uint32_t x = index + stream * 0x9e3779b9U;
  x = (x ^ x >> 16) * 0x85ebca6bU;
  x = (x ^ x >> 13) * 0xc2b2ae35U;
  return (double(x ^ x >> 16) + 0.5) / 4294967296.0;
}
/// Numbers of a weight, uniform with this deviation.
std::vector<float> weight(std::uint32_t stream, Extent count, double deviation) {
  std::vector<float> numbers(count);
  for (Extent i = 0; i < count; ++i) numbers[i] = float((drawn(stream, std::uint32_t(i)) - 0.5) * std::sqrt(12.0) * deviation);
  return numbers;
}
/// Rows whose first columns are what a gate of ones on its diagonal gives experts: the logarithm of 1 / (expert + 1) plus a Gumbel number,
/// so that the largest of them are draws by Zipf's law.
std::vector<float> inputs(Extent tokens, Extent width, Extent experts) {
  std::vector<float> x = weight(1, tokens * width, 1);
  for (Extent t = 0; t < tokens && experts > 1; ++t)
    for (Extent e = 0; e < experts; ++e)
      x[t * width + e] = float(-std::log(double(e + 1)) - std::log(-std::log(drawn(2, std::uint32_t(t * experts + e)))));
  return x;
}

/// Stored rows: what enters the layer. Its gradient is asked for by the layer and goes nowhere.
struct Given {
  const std::vector<float>* numbers;
  Extent width;
  void parts(auto&) const {}
  struct Read : dsx::Operation {
    static constexpr const char* name = "given";
    dsx::Node x;
    const std::vector<float>* numbers;
    void forward(dsx::Pass& p) const {
      View x_RC = p.view(x), from{const_cast<float*>(numbers->data()), x_RC.shape, dsx::Element::f32};
      p.launch(dsx::kernels::copy, from, x_RC);
    }
    void towards_inputs(dsx::Pass&) const {}
  };
  dsx::Value<dsx::Common> operator()(dsx::Tokens tokens) const {
    const auto x = tokens.pass->make<dsx::Common>(width);
    tokens.pass->run(Read{{}, x.node, numbers});
    return x;
  }
};

/// Half the mean square of what the layer answers.
struct HalfSquare {
  dsx::Observer* observer;
  double* ended;
  struct Sum : dsx::Operation {
    static constexpr const char* name = "half_square";
    dsx::Node y, loss;
    void forward(dsx::Pass& p) const {
      p.launch([](View from, View to) { *to.pointer<double>() = dsx::kernels::squared_norm(from) / 2; }, p.view(y), p.view(loss));
    }
    void towards_inputs(dsx::Pass& p) const {
      const auto pull = [](View y_RC, View w, View dy) { dsx::kernels::scale(y_RC, *w.pointer<double>(), dy); };
      p.launch(pull, p.view(y), p.incoming(loss), p.gradient(y).view);
    }
  };
  dsx::Counts counts(const dsx::Batch& batch) const { return {double(batch.live())}; }
  void operator()(dsx::Value<dsx::Common> y, const dsx::Counts& counts) const {
    dsx::Pass& p = *y.pass;
    const dsx::Node loss = p.make_scalar(dsx::Element::f64);
    p.run(Sum{{}, y.node, loss});
    p.add_loss(loss, 1 / counts.targets);
    if (p.dry()) return;
    p.observer = observer, *ended = now();
  }
};

/// Seconds by operation and direction.
struct Profile : dsx::Observer {
  std::map<std::string, double> seconds{};
  double began = 0;
  void before(const char*, dsx::Unit, Phase, const dsx::Cost&) override { began = now(); }
  void after(const char* operation, dsx::Unit, Phase phase, dsx::Pass&) override {
    seconds[dsx::concat(operation, phase == Phase::forward ? " forward" : " backward")] += now() - began;
  }
};

template <class Layer>
void train(const Layer& layer, Extent tokens, Extent width, Extent hidden, Extent experts) {
  const std::vector<float> x = inputs(tokens, width, experts);
  dsx::Session session{dsx::self_transport()};
  const dsx::Mesh mesh{session, {}};
  dsx::Weights weights{mesh, dsx::Sequential{dsx::Named{"layer", dsx::Chain{Given{&x, width}, layer}}}, dsx::Recipe{}, 1};
  for (const dsx::ParameterRecord& r : weights.records()) {
    std::vector<float> numbers(r.shape.size());
    if (r.path.ends_with("gate"))
      for (Extent e = 0; e < experts; ++e) numbers[e * experts + e] = 1;
    else if (r.path.ends_with("up.weight"))
      numbers = weight(3, numbers.size(), 1 / std::sqrt(double(width)));
    else if (r.path.ends_with("down.weight"))
      numbers = weight(4, numbers.size(), 1 / std::sqrt(double(hidden)));
    weights.template assign<float>(r.path, numbers);
  }
  Profile profile;
  double forward_ended = 0;
  dsx::Trainer trainer{weights, dsx::Sgd{.rate = rate}, HalfSquare{&profile, &forward_ended}, {.rows = tokens}};
  std::vector<dsx::MicroBatch> batches(1);
  const std::vector<int> nothing(tokens);
  batches[0].add(nothing, nothing, 0);
  answer_ready();
  for (std::string line; std::getline(std::cin, line);) {
    profile.seconds.clear();
    const double began = now();
    trainer.accumulate(batches);
    const double ended = now();
    const dsx::Verdict verdict = trainer.verdict();
    if (line == "step") trainer.commit(verdict);
    std::string operations;
    for (const auto& [operation, seconds] : profile.seconds)
      operations += dsx::concat(operations.empty() ? "" : ", ", '"', operation, "\": ", seconds);
    std::printf("{\"loss\": %.9g, \"norm\": %.9g, \"step\": %.6f, \"forward\": %.6f, \"backward\": %.6f, \"flops\": %.6g, \"operations\": {%s}}\n",
                verdict.loss, std::sqrt(verdict.squared_norm), ended - began, forward_ended - began, ended - forward_ended, trainer.flops(),
                operations.c_str());
    std::fflush(stdout);
  }
}

void layer(Extent experts, Extent choices, Extent tokens, Extent width, Extent hidden) {
  using dsx::Dropless;
  const dsx::Mlp mlp{width, hidden};
  const auto routed = [&](auto router) { train(dsx::Experts{experts, router, mlp}, tokens, width, hidden, experts); };
  if (experts == 1 && choices == 1)
    train(mlp, tokens, width, hidden, 1);
  else if (choices == 1)
    routed(Dropless<1>{.width = width, .experts = experts});
  else if (choices == 2)
    routed(Dropless<2>{.width = width, .experts = experts});
  else
    throw std::runtime_error("1 or 2 choices, not " + std::to_string(choices));
}

/// Rows of tokens and of experts in memory as a pass has it, sorted by experts that are drawn as above, sixteen of them.
void moves(Extent choices, Extent tokens, Extent width) {
  constexpr Extent experts = 16;
  const Extent rows = tokens * choices;
  dsx::Session session{dsx::self_transport()};
  const auto make = [&](Extent r, Extent c, dsx::Element element) { return session.memory.keep(dsx::Category::scratch, {r, c}, element); };
  using dsx::Element;
  const View x = make(tokens, width, Element::f32), y = make(tokens, width, Element::f32), sorted = make(rows, width, Element::f32),
             dsorted = make(rows, width, Element::f32), weights = make(tokens, choices, Element::f32), dweights = make(tokens, choices, Element::f32),
             chosen = make(tokens, choices, Element::i32), counts = make(1, experts, Element::i32), places = make(tokens, choices, Element::i32),
             begin = make(1, experts + 1, Element::u64), ids = make(rows, 1, Element::u64), live = make(1, 1, Element::i64);
  for (Extent i = 0; i < x.size(); ++i) x.pointer<float>()[i] = float(i % 251) / 251 - 0.5F;
  const std::vector<float> logits = inputs(tokens, experts, experts);
  for (Extent t = 0; t < tokens; ++t) {
    std::vector<int> order(experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[t * experts + Extent(a)] > logits[t * experts + Extent(b)]; });
    for (Extent i = 0; i < choices; ++i) {
      chosen.at<std::int32_t>(t, i) = order[i], ++counts.at<std::int32_t>(0, Extent(order[i]));
      weights.at<float>(t, i) = 1 / float(choices);
    }
  }
  std::vector<dsx::RowId> token_ids(tokens);
  std::iota(token_ids.begin(), token_ids.end(), 0);
  dsx::kernels::expert_order(chosen, counts, token_ids.data(), places, begin, ids, live);
  dsx::kernels::copy(x, y);
  const double token_bytes = double(x.bytes()), row_bytes = double(sorted.bytes());
  struct Move {
    std::string name;
    double bytes;  // that must be read and written
    std::function<void()> run;
  };
  const dsx::Grad to_rows{dsorted, false}, to_tokens{y, false}, to_weights{dweights, false}, more_of_tokens{y, true}, more_of_rows{dsorted, true};
  std::vector<Move> all{
      {"permute", token_bytes + row_bytes, [&] { dsx::kernels::permute(x, places, {sorted, false}); }},
      {"combine_pullback", token_bytes + 2 * row_bytes, [&] { dsx::kernels::combine_pullback(sorted, weights, places, x, to_rows, to_weights); }},
      {"combine", token_bytes + row_bytes, [&] { dsx::kernels::combine(sorted, weights, places, y); }},
      {"permute_pullback", token_bytes + row_bytes, [&] { dsx::kernels::permute_pullback(sorted, places, to_tokens); }},
      {"permute_pullback, adding", 2 * token_bytes + row_bytes, [&] { dsx::kernels::permute_pullback(sorted, places, more_of_tokens); }},
      {"combine_pullback, adding", token_bytes + 3 * row_bytes,
       [&] { dsx::kernels::combine_pullback(sorted, weights, places, x, more_of_rows, to_weights); }}};
  const auto* const from = sorted.pointer<std::byte>();
  auto* const to = dsorted.pointer<std::byte>();
  for (const auto& way : dsx::benchmarks::copies)
    all.push_back({dsx::concat("copy by ", way.name), 2 * row_bytes, [&way, from, to, bytes = sorted.bytes()] {
                     dsx::benchmarks::on_threads(bytes, [&](dsx::Range r) { way.run(from + r.begin, to + r.begin, r.size()); });
                   }});
  static std::atomic<float> kept{0};
  all.push_back({"read", row_bytes, [from, bytes = sorted.bytes()] {
                   dsx::benchmarks::on_threads(bytes, [&](dsx::Range r) { kept = dsx::benchmarks::read(from + r.begin, r.size()); });
                 }});
  for (const Move& m : all) m.run();  // pages that nobody has touched come slowly
  answer_ready();
  for (std::string line; std::getline(std::cin, line);) {
    std::string moved;
    for (const Move& m : all) {
      const double began = now();
      m.run();
      moved += dsx::concat(moved.empty() ? "" : ", ", '"', m.name, "\": {\"bytes\": ", m.bytes, ", \"seconds\": ", now() - began, "}");
    }
    std::printf("{%s}\n", moved.c_str());
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string what = argc > 1 ? argv[1] : "";
    const auto number = [&](int i) { return Extent(std::stoul(argv[i])); };
    if (what == "layer" && argc == 8) {
      dsx::kernels::use_threads(number(7));
      layer(number(2), number(3), number(4), number(5), number(6));
    } else if (what == "moves" && argc == 6) {
      dsx::kernels::use_threads(number(5));
      moves(number(2), number(3), number(4));
    } else {
      std::fprintf(stderr, "usage: moe layer EXPERTS CHOICES TOKENS WIDTH HIDDEN THREADS | moe moves CHOICES TOKENS WIDTH THREADS\n");
      return 1;
    }
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "moe: %s\n", e.what());
    return 1;
  }
}
