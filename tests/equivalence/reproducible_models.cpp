// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Sums by grains in models of other kinds: experts with seats and losses of their own, buffers that count, two losses, Llama; and kernels on
/// several OpenMP threads.
// labels: traj
// timeout: 600
#include "support/runs.hpp"

#include <dsx/kernels/threads.hpp>
#include <dsx/models/llama.hpp>
#include <dsx/moe/top_k.hpp>
#include <dsx/nn/experts.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

/// Adds up fractions of what it has seen, and stands by the sum of it in the loss.
struct Mean : Operation {
  static constexpr const char* name = "mean";
  Node x, y, sum;
  Slot seen;
  void forward(Pass& p) const {
    p.launch(kernels::copy, p.view(x), p.view(y));
    const Grad all = p.buffer_update(seen);
    p.launch([&] {
      dispatch(all.view.element, [&](auto wide) {
        using W = decltype(wide);
        dispatch(p.element(x), [&](auto zero) {
          using T = decltype(zero);
          double squares = 0;
          for (Extent c = 0; c < all.view.size(); ++c) {
            W& total = all.view.pointer<W>()[c];
            if (!all.accumulate) total = W(0.0);
            for (Extent r = 0; r < p.shape(x).rows; ++r) {
              const double v = double(p.view(x).at<T>(r, c));
              total = W(double(total) + v), squares += v * v;
            }
          }
          *p.view(sum).pointer<double>() = squares;
        });
      });
    });
  }
  void towards_inputs(Pass& p) const { p.launch(kernels::pass_on, p.incoming(y), p.gradient(x)); }
};
struct Seen {
  Buffer seen{.size = 4};
  void parts(auto& visit) const { visit("seen", seen); }
  Value<Common> operator()(Value<Common> x) const {
    Pass& p = *x.pass;
    const auto y = p.make<Common>(p.shape(x.node).columns);
    const Node sum = p.make_scalar(Element::f64);
    p.run(Mean{{}, x.node, y.node, sum, seen.slot});
    if (p.training) p.add_loss(sum, 0.1 / p.step_rows());
    return y;
  }
};

constexpr Extent vocabulary = 41, length = 12, width = 24;

auto experts() {
  const TopK<2> router{.width = width, .experts = 4, .capacity_factor = 0.9, .least_capacity = 1, .balance = {.weight = 0.3}, .z_loss = 0.05};
  return Sequential{Named{"e", Embedding{vocabulary, length, width, 0.1}}, Named{"seen", Seen{}},
                    Named{"moe", Residual{LayerNorm{width}, Experts{4, router, Mlp{width, 20}}}}, Named{"again", Seen{}},
                    Named{"h", Chain{LayerNorm{width}, Head{vocabulary, width}}}};
}
auto llama() {
  return make_qwen2({.vocabulary = vocabulary,
                     .width = width,
                     .heads = 6,
                     .key_value_heads = 3,
                     .head_dim = 4,
                     .layers = 3,
                     .hidden = 21,
                     .tied = true,
                     .attention_dropout = 0.1});
}

/// Sequence `number` of a step of eight, of a length of its own.
MicroBatch sequence(Extent step, Extent number, Extent repeats = 1) {
  MicroBatch batch;
  for (Extent i = 0; i < repeats; ++i) {
    std::vector<int> ids, targets;
    for (Extent t = 0; t < (repeats > 1 ? length : 3 + (number * 5 + step) % (length - 2)); ++t) {
      ids.push_back(int((number * 7 + t * t * 3 + step + 11 * i) % vocabulary));
      targets.push_back(int((number * 5 + t * t + step * 3 + i) % vocabulary));
    }
    batch.add(ids, targets, (number * repeats + i) * length);
  }
  return batch;
}

struct Trained {
  std::vector<double> losses{}, norms{};
  std::vector<std::vector<double>> tensors{};
  bool operator==(const Trained&) const = default;
};
struct Run {
  Degrees degrees{};
  AnySharding sharding = Replicate{};
  Elements elements{};
  Extent repeats = 1, threads = 1;
};

template <class Model>
Trained train(const Model& model, const Run& run, AnyOptimizer optimizer = AdamW{.rate = 3e-3}) {
  Trained trained;
  const AnyRecipe recipe{run.sharding, OneForwardOneBackward{}, AnyPrecision{toy::GivenElements{run.elements}}, Reproducible{}};
  launch_threads(
      run.degrees.ranks(),
      [&](Session& session) {
        kernels::use_threads(run.threads);
        const Mesh mesh{session, run.degrees};
        const Extent data = run.degrees.data, micro_batches = 8 / data;
        Weights weights{mesh, model, recipe};
        Trainer trainer{
            weights, optimizer, TokenLoss{.chunk = 16}, {.micro_batches = micro_batches, .rows = length * run.repeats, .clip = 0.5, .seed = 2}};
        for (Extent step = 0; step < 4; ++step) {
          std::vector<MicroBatch> batches;
          for (Extent j = 0; j < micro_batches; ++j) batches.push_back(sequence(step, j * data + mesh.coordinate(Axes::data), run.repeats));
          const Verdict v = trainer.step(batches);
          if (session.is_root()) trained.losses.push_back(v.loss), trained.norms.push_back(v.squared_norm);
        }
        const auto note = [&](std::vector<double> values) {
          if (session.is_root()) trained.tensors.push_back(std::move(values));
        };
        for (const ParameterRecord& r : weights.records()) note(weights.template weight<double>(r.path));
        for (const ParameterRecord& r : weights.buffers()) note(weights.template buffer<double>(r.path));
      },
      {.time_limit = std::chrono::seconds{60}});
  return trained;
}

void check_layouts(const auto& model) {
  for (const Elements& elements : {Elements{}, Elements{Element::bf16, Element::f32, Element::f32}}) {
    const Trained one = train(model, {.elements = elements});
    for (const Extent data : {1, 2, 4, 8})
      for (const Extent pipe : {1, 2, 3}) {
        if (data * pipe > 12) continue;
        INFO("data ", data, ", pipe ", pipe, ", ", name_of(elements.value));
        CHECK(train(model, {{.data = data, .pipe = pipe}, data % 4 == 0 ? AnySharding{ZeRO<3>{}} : AnySharding{Replicate{}}, elements}) == one);
      }
  }
}

}  // namespace

TEST_CASE("experts, losses of units and buffers have the same bits on every layout of the same grains") { check_layouts(experts()); }
TEST_CASE("with as many expert ranks, the bits don't depend on data ranks and accumulation") {
  const auto model = experts();
  const Trained two = train(model, {.degrees = {.data = 2, .expert = 2}});
  for (const Extent data : {2, 4, 8})
    for (const AnySharding& sharding : {AnySharding{Replicate{}}, AnySharding{ZeRO<3>{}}})
      for (const Extent pipe : {1, 2}) {
        INFO("data ", data, ", pipe ", pipe);
        CHECK(train(model, {{.data = data, .pipe = pipe, .expert = 2}, sharding}) == two);
      }
}
TEST_CASE("a Qwen2 has the same bits on every layout of the same grains") { check_layouts(llama()); }

TEST_CASE("with fixed grains the bits don't depend on the number of OpenMP threads") {
  // As large as it takes for each kernel to use its threads.
  const auto model = Sequential{
      Named{"e", Embedding{vocabulary, length, 96, 0.1}},
      Named{"blocks", Repeat{2, Gpt2Block{LayerNorm{96}, CausalAttention{96, 4, default_deviation, 0.1}, LayerNorm{96}, Mlp{96, 384}, 0.1}}},
      Named{"h", Chain{LayerNorm{96}, Head{vocabulary, 96}}}};
  for (const Elements& elements : {Elements{}, Elements{Element::bf16, Element::f32, Element::f32}})
    for (const AnyOptimizer& optimizer : {AnyOptimizer{AdamW{.rate = 3e-3}}, AnyOptimizer{Muon{.others = {.rate = 3e-3}}}}) {
      const Trained one = train(model, {.elements = elements, .repeats = 32}, optimizer);
      for (const Extent threads : {2, 3}) CHECK(train(model, {{.data = 2}, ZeRO<2>{}, elements, 32, threads}, optimizer) == one);
    }
  CHECK(train(llama(), {.repeats = 64, .threads = 2}) == train(llama(), {.repeats = 64}));
  CHECK(train(experts(), {.repeats = 64, .threads = 2}) == train(experts(), {.repeats = 64}));
}
