// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Products of a GPT-2 124M step, of few rows, of a number of rows that changes with each call, and of groups. Arguments: m, n, k,
/// transposed a, transposed b. FLOP/s as a counter; the library is the one that DSX_MATMUL names.
///
///     DSX_MATMUL=onednn OMP_NUM_THREADS=1 build/release/benchmarks/kernels_matmul --benchmark_filter='product<float>'
#include <dsx/kernels/matmul.hpp>

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

namespace {

using namespace dsx;

template <class T>
View view(std::vector<T>& x, Shape shape) {
  return {x.data(), shape, element_of<T>, Place::cpu, nullptr};
}

/// Operands, result and scratch of a product, by the benchmark's arguments.
template <class T>
struct Operands {
  Extent m, n, k;
  std::vector<T> a, b, c;
  kernels::Matrix left, right;
  View out;
  std::vector<std::byte> bytes;
  View scratch;
  explicit Operands(benchmark::State& state)
      : m{Extent(state.range(0))},
        n{Extent(state.range(1))},
        k{Extent(state.range(2))},
        a(m * k, T(0.5F)),
        b(k * n, T(0.25F)),
        c(m * n),
        left{view(a, state.range(3) ? Shape{k, m} : Shape{m, k}), bool(state.range(3))},
        right{view(b, state.range(4) ? Shape{n, k} : Shape{k, n}), bool(state.range(4))},
        out{view(c, {m, n})},
        bytes(kernels::matmul_scratch(left, right, out)),
        scratch{bytes.data(), {bytes.size(), 1}, Element::u8, Place::cpu, nullptr} {
    state.SetLabel(std::string(name_of(kernels::matmul_library(element_of<T>))));
  }
};

void report(benchmark::State& state, double rows, Extent n, Extent k) {
  state.counters["FLOP/s"] = benchmark::Counter(2.0 * rows * double(n * k), benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
}

template <class T>
void product(benchmark::State& state) {
  Operands<T> x{state};
  for (auto _ : state) kernels::matmul(x.left, x.right, {x.out, false}, {}, x.scratch);
  report(state, double(x.m) * double(state.iterations()), x.n, x.k);
}

/// Each call has another number of rows, between three quarters of m and m, as sequences of different lengths give.
template <class T>
void ragged(benchmark::State& state) {
  Operands<T> x{state};
  double rows = 0;
  Extent less = 0;
  for (auto _ : state) {
    const Extent m = x.m - less;
    less = (less + 37) % (x.m / 4);
    kernels::matmul({x.left.view.rows({0, m})}, x.right, {x.out.rows({0, m}), false}, {}, x.scratch);
    rows += double(m);
  }
  report(state, rows, x.n, x.k);
}

/// m rows in eight groups of different sizes, each with a matrix of its own.
template <class T>
void groups(benchmark::State& state) {
  Operands<T> x{state};
  std::vector<T> stack(8 * x.k * x.n, T(0.25F));
  std::vector<Extent> begin{0};
  for (Extent g = 1; g <= 8; ++g) begin.push_back(x.m * g * g / 64);
  for (auto _ : state) kernels::grouped_matmul(x.left, view(stack, {8 * x.k, x.n}), false, begin, {x.out, false}, x.scratch);
  report(state, double(x.m) * double(state.iterations()), x.n, x.k);
}

/// Forward, towards the inputs and towards the weights: the four weights of a block, then a chunk of the vocabulary.
void of_a_step(benchmark::internal::Benchmark* b) {
  constexpr std::int64_t width = 768;
  for (const std::int64_t rows : {256, 1024}) {
    for (const auto& [inner, columns] : {std::pair{width, 3 * width}, {width, width}, {width, 4 * width}, {4 * width, width}})
      b->Args({rows, columns, inner, 0, 0}), b->Args({rows, inner, columns, 0, 1}), b->Args({inner, columns, rows, 1, 0});
    b->Args({rows, 8192, width, 0, 1}), b->Args({rows, width, 8192, 0, 0}), b->Args({8192, width, rows, 1, 0});
  }
  b->UseRealTime();
}
void of_few_rows(benchmark::internal::Benchmark* b) {
  for (const std::int64_t rows : {1, 4, 17}) b->Args({rows, 3072, 768, 0, 0});
  b->Args({1, 50257, 768, 0, 1});
  b->UseRealTime();
}
void of_some_rows(benchmark::internal::Benchmark* b) { b->Args({256, 3072, 768, 0, 0})->Args({256, 768, 3072, 0, 0})->UseRealTime(); }

BENCHMARK(product<float>)->Apply(of_a_step)->Apply(of_few_rows);
BENCHMARK(product<bf16>)->Apply(of_a_step)->Apply(of_few_rows);
BENCHMARK(ragged<float>)->Apply(of_some_rows);
BENCHMARK(groups<float>)->Apply(of_some_rows);

}  // namespace
