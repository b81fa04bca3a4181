// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Permute and combine beside plain copies and a plain read, in memory as a pass has it; bytes are those that must be read and written at
/// least. Arguments: tokens, choices, columns.
///
///     OMP_NUM_THREADS=2 build/release/benchmarks/kernels_permute
#include "copies.hpp"

#include <dsx/kernels/elementwise.hpp>
#include <dsx/kernels/permute.hpp>
#include <dsx/place/memory.hpp>

#include <benchmark/benchmark.h>

#include <cmath>
#include <vector>

namespace {

using namespace dsx;

template <class T>
class Matrix {
 public:
  explicit Matrix(Extent n) : size_{n}, block_{resource(Place::cpu), n * sizeof(T)} { std::fill_n(begin(), n, T(0.5F)); }
  T* begin() { return reinterpret_cast<T*>(block_.data()); }
  Extent size() const { return size_; }
  Extent bytes() const { return size_ * sizeof(T); }

 private:
  Extent size_;
  Block block_;
};

/// Sixteen experts of which the first are chosen most; every choice has its place.
template <class T>
struct Routed {
  Extent tokens, choices, columns;
  Matrix<T> x, y, rows, drows;
  std::vector<Wide<T>> weights, dweights;
  std::vector<std::int32_t> chosen, counts, places;
  std::vector<Extent> begin;
  std::vector<RowId> ids, expert_ids;
  std::int64_t live = 0;

  explicit Routed(const benchmark::State& state)
      : tokens(Extent(state.range(0))),
        choices(Extent(state.range(1))),
        columns(Extent(state.range(2))),
        x(tokens * columns),
        y(tokens * columns),
        rows(tokens * choices * columns),
        drows(tokens * choices * columns),
        weights(tokens * choices, Wide<T>(0.5)),
        dweights(weights),
        chosen(tokens * choices),
        counts(16),
        places(chosen),
        begin(17),
        ids(tokens),
        expert_ids(chosen.size()) {
    for (Extent i = 0; i < x.size(); ++i) x.begin()[i] = T(std::sin(float(i)));
    for (Extent t = 0; t < tokens; ++t) {
      const float u = uniform({.seed = 1}, t, 0);
      ids[t] = t;
      for (Extent i = 0; i < choices; ++i) {
        chosen[t * choices + i] = std::int32_t((Extent(16 * u * u) + 5 * i) % 16);
        ++counts[Extent(chosen[t * choices + i])];
      }
    }
    order();
    kernels::permute(tokens_view(x), table(places, Element::i32), {rows_view(rows), false});
  }
  void order() {
    kernels::expert_order(table(chosen, Element::i32), {counts.data(), {1, 16}, Element::i32, Place::cpu, nullptr}, ids.data(),
                          table(places, Element::i32), {begin.data(), {1, 17}, Element::u64, Place::cpu, nullptr},
                          {expert_ids.data(), {expert_ids.size(), 1}, Element::u64, Place::cpu, nullptr},
                          {&live, {1, 1}, Element::i64, Place::cpu, nullptr});
  }
  View tokens_view(Matrix<T>& v) { return {v.begin(), {tokens, columns}, element_of<T>, Place::cpu, nullptr}; }
  View rows_view(Matrix<T>& v) { return {v.begin(), {tokens * choices, columns}, element_of<T>, Place::cpu, nullptr}; }
  View table(auto& v, Element e) { return {v.data(), {tokens, choices}, e, Place::cpu, nullptr}; }
  View places_view() { return table(places, Element::i32); }
  View weights_view(std::vector<Wide<T>>& v) { return table(v, element_of<Wide<T>>); }

  /// Runs a call that moves so many rows a token.
  void measure(benchmark::State& state, Extent each, const auto& call) {
    for (auto _ : state) {
      call();
      benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(std::int64_t(state.iterations()) * std::int64_t(tokens * columns * each * sizeof(T)));
  }
};

template <class T>
void copy(benchmark::State& state) {
  Routed<T> r{state};
  r.measure(state, 2 * r.choices, [&] { kernels::copy(r.rows_view(r.rows), r.rows_view(r.drows)); });
}
/// Of as many bytes, by the ways there are.
template <Extent way>
void plain_copy(benchmark::State& state) {
  Routed<float> r{state};
  state.SetLabel(benchmarks::copies[way].name);
  const auto* const from = reinterpret_cast<const std::byte*>(r.rows.begin());
  auto* const to = reinterpret_cast<std::byte*>(r.drows.begin());
  r.measure(state, 2 * r.choices, [&] {
    benchmarks::on_threads(r.rows.bytes(), [&](Range part) { benchmarks::copies[way].run(from + part.begin, to + part.begin, part.size()); });
  });
}
void plain_read(benchmark::State& state) {
  Routed<float> r{state};
  const auto* const from = reinterpret_cast<const std::byte*>(r.rows.begin());
  r.measure(state, r.choices, [&] {
    benchmarks::on_threads(r.rows.bytes(), [&](Range part) { benchmark::DoNotOptimize(benchmarks::read(from + part.begin, part.size())); });
  });
}
template <class T>
void permute(benchmark::State& state) {
  Routed<T> r{state};
  r.measure(state, 1 + r.choices, [&] { kernels::permute(r.tokens_view(r.x), r.places_view(), {r.rows_view(r.rows), false}); });
}
template <class T>
void permute_pullback(benchmark::State& state) {
  Routed<T> r{state};
  r.measure(state, 1 + r.choices, [&] { kernels::permute_pullback(r.rows_view(r.rows), r.places_view(), {r.tokens_view(r.y), false}); });
}
template <class T>
void combine(benchmark::State& state) {
  Routed<T> r{state};
  r.measure(state, 1 + r.choices, [&] { kernels::combine(r.rows_view(r.rows), r.weights_view(r.weights), r.places_view(), r.tokens_view(r.y)); });
}
template <class T>
void combine_pullback(benchmark::State& state) {
  Routed<T> r{state};
  r.measure(state, 1 + 2 * r.choices, [&] {
    kernels::combine_pullback(r.rows_view(r.rows), r.weights_view(r.weights), r.places_view(), r.tokens_view(r.y), {r.rows_view(r.drows), false},
                              {r.weights_view(r.dweights), false});
  });
}
/// Beside them: the order itself, in choices a second.
void expert_order(benchmark::State& state) {
  Routed<float> r{state};
  for (auto _ : state) r.order();
  state.SetItemsProcessed(std::int64_t(state.iterations()) * std::int64_t(r.places.size()));
}

void shapes(benchmark::internal::Benchmark* b) { b->Args({8192, 2, 1024})->Args({8192, 2, 4096})->Args({8192, 8, 1024})->UseRealTime(); }
BENCHMARK(copy<float>)->Apply(shapes);
BENCHMARK(plain_copy<0>)->Apply(shapes);
BENCHMARK(plain_copy<1>)->Apply(shapes);
BENCHMARK(plain_copy<2>)->Apply(shapes);
BENCHMARK(plain_read)->Apply(shapes);
BENCHMARK(permute<float>)->Apply(shapes);
BENCHMARK(combine<float>)->Apply(shapes);
BENCHMARK(permute_pullback<float>)->Apply(shapes);
BENCHMARK(combine_pullback<float>)->Apply(shapes);
BENCHMARK(copy<bf16>)->Apply(shapes);
BENCHMARK(permute<bf16>)->Apply(shapes);
BENCHMARK(combine<bf16>)->Apply(shapes);
BENCHMARK(permute_pullback<bf16>)->Apply(shapes);
BENCHMARK(combine_pullback<bf16>)->Apply(shapes);
BENCHMARK(expert_order)->Args({8192, 2, 64})->Args({8192, 8, 64})->UseRealTime();

}  // namespace
