// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Causal attention and its pullback: sequences, their length, channels of a head (12 heads), percent dropped. FLOP/s count the causal half.
///
///     OMP_NUM_THREADS=2 build/release/benchmarks/kernels_attention
#include <dsx/kernels/attention.hpp>

#include <benchmark/benchmark.h>

#include <cmath>
#include <vector>

namespace {

using namespace dsx;

struct Setting {
  Heads heads;
  std::vector<std::uint32_t> begin{0};
  Extent rows, width;
  std::vector<RowId> ids;
  kernels::AttentionDropout dropout;
  std::vector<float> qkv, y, dy, log_sums, dqkv, scratch;

  explicit Setting(const benchmark::State& state) : heads{12, 12, Extent(state.range(2))} {
    for (int s = 0; s < state.range(0); ++s) begin.push_back(begin.back() + std::uint32_t(state.range(1)));
    rows = begin.back(), width = heads.query * heads.dim;
    qkv.resize(rows * heads.columns()), y.resize(rows * width), dy.resize(rows * width), log_sums.resize(rows * heads.query), dqkv.resize(qkv.size());
    scratch.resize(kernels::attention_scratch(rows, heads, Element::f32) / sizeof(float));
    for (Extent i = 0; i < rows; ++i) ids.push_back(i);
    dropout = {double(state.range(3)) / 100, {.seed = 1}, ids.data()};
    for (Extent i = 0; i < qkv.size(); ++i) qkv[i] = std::sin(float(i));
    for (Extent i = 0; i < dy.size(); ++i) dy[i] = std::cos(float(i));
  }
  static View view(std::vector<float>& x, Extent r) { return {x.data(), {r, r ? x.size() / r : 0}, Element::f32, Place::cpu, nullptr}; }
  void forward() { kernels::attention(view(qkv, rows), heads, {begin}, view(y, rows), view(log_sums, rows), dropout); }
  void pullback() {
    kernels::attention_pullback(view(qkv, rows), heads, {begin}, view(y, rows), view(log_sums, rows), view(dy, rows), {view(dqkv, rows), false},
                                view(scratch, scratch.size()), dropout);
  }
  /// Of two products with a causal triangle.
  double flops() const { return 2.0 * double(width) * double(begin[1]) * double(begin[1] + 1) * double(begin.size() - 1); }
};

void attention(benchmark::State& state) {
  Setting s{state};
  for (auto _ : state) s.forward();
  state.counters["FLOP/s"] = benchmark::Counter(s.flops(), benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}
void attention_pullback(benchmark::State& state) {
  Setting s{state};
  s.forward();
  for (auto _ : state) s.pullback();
  state.counters["FLOP/s"] = benchmark::Counter(2.5 * s.flops(), benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}
/// One new row a sequence.
void attention_cached(benchmark::State& state) {
  Setting s{state};
  const Extent count = Extent(state.range(0)), length = Extent(state.range(1));
  std::vector<std::uint32_t> begin{0};
  std::vector<kernels::KeyValues> caches;
  for (Extent i = 0; i < count; ++i) {
    begin.push_back(std::uint32_t(i + 1));
    const Extent half = length * s.width;  // qkv is as good a cache as any
    float* const keys = s.qkv.data() + i * length * s.heads.columns();
    const auto cache = [&](float* p) { return View{p, {length, s.width}, Element::f32, Place::cpu, nullptr}; };
    caches.push_back({cache(keys), cache(keys + half), length});
  }
  std::vector<float> rows(count * s.heads.columns(), 0.5F), y(count * s.width);
  for (auto _ : state) kernels::attention_cached(Setting::view(rows, count), s.heads, {begin}, caches, Setting::view(y, count));
  state.SetBytesProcessed(std::int64_t(state.iterations()) * std::int64_t(2 * count * length * s.width * sizeof(float)));
}

void shapes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t percent : {0, 10})
    b->Args({4, 64, 64, percent})
        ->Args({4, 256, 64, percent})
        ->Args({1, 1024, 64, percent})
        ->Args({4, 256, 128, percent})
        ->Args({4, 256, 16, percent});
  b->UseRealTime();
}
BENCHMARK(attention)->Apply(shapes);
BENCHMARK(attention_pullback)->Apply(shapes);
BENCHMARK(attention_cached)->Args({1, 1024, 64, 0})->Args({8, 1024, 64, 0})->UseRealTime();

}  // namespace
