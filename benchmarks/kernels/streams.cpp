// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Kernels that memory bounds, beside a plain copy; bytes are those that must be read and written at least. Arguments: rows, columns.
///
///     OMP_NUM_THREADS=2 build/release/benchmarks/kernels_streams
#include <dsx/kernels/elementwise.hpp>
#include <dsx/kernels/layer_norm.hpp>
#include <dsx/kernels/optimizer.hpp>
#include <dsx/kernels/rms_norm.hpp>
#include <dsx/kernels/rope.hpp>
#include <dsx/kernels/swiglu.hpp>
#include <dsx/kernels/token_loss.hpp>

#include <benchmark/benchmark.h>

#include <cmath>
#include <vector>

namespace {

using namespace dsx;

template <class T>
struct Matrix {
  std::vector<T> data;
  Shape shape;
  explicit Matrix(Extent rows, Extent columns) : data(rows * columns), shape{rows, columns} {
    for (Extent i = 0; i < data.size(); ++i) data[i] = T(std::sin(float(i)));
  }
  View view() { return {data.data(), shape, element_of<T>, Place::cpu, nullptr}; }
  Grad grad() { return {view(), false}; }
};

/// Runs a call that moves `each` elements of T per element of the matrix.
template <class T, class F>
void stream(benchmark::State& state, double each, const F& call) {
  for (auto _ : state) {
    call();
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(std::int64_t(double(state.iterations()) * double(state.range(0) * state.range(1)) * each * sizeof(T)));
}

template <class T>
void copy(benchmark::State& state) {
  Matrix<T> x(Extent(state.range(0)), Extent(state.range(1))), y = x;
  stream<T>(state, 2, [&] { kernels::copy(x.view(), y.view()); });
}
template <class T>
void gelu(benchmark::State& state) {
  Matrix<T> x(Extent(state.range(0)), Extent(state.range(1))), y = x;
  stream<T>(state, 2, [&] { kernels::gelu(x.view(), y.view(), Gelu::tanh); });
}
template <class T>
void gelu_pullback(benchmark::State& state) {
  Matrix<T> x(Extent(state.range(0)), Extent(state.range(1))), dy = x, dx = x;
  stream<T>(state, 3, [&] { kernels::gelu_pullback(x.view(), dy.view(), dx.grad(), Gelu::tanh); });
}
template <class T>
void dropout(benchmark::State& state) {
  Matrix<T> x(Extent(state.range(0)), Extent(state.range(1))), y = x;
  std::vector<RowId> ids(x.shape.rows, 7);
  stream<T>(state, 2, [&] { kernels::dropout(x.view(), y.grad(), ids.data(), 0, 0.1, {}); });
}
template <class T>
void column_sums(benchmark::State& state) {
  Matrix<T> dy(Extent(state.range(0)), Extent(state.range(1)));
  Matrix<float> sums(1, dy.shape.columns);
  stream<T>(state, 1, [&] { kernels::column_sums(dy.view(), sums.grad()); });
}
template <class T>
void layer_norm(benchmark::State& state) {
  Matrix<T> x(Extent(state.range(0)), Extent(state.range(1))), y = x, gain(1, x.shape.columns);
  Matrix<float> stats(x.shape.rows, 2);
  stream<T>(state, 2, [&] { kernels::layer_norm(x.view(), gain.view(), gain.view(), 1e-5, y.view(), stats.view()); });
}
template <class T>
void layer_norm_pullbacks(benchmark::State& state) {
  Matrix<T> x(Extent(state.range(0)), Extent(state.range(1))), dy = x, dx = x, gain(1, x.shape.columns);
  Matrix<float> stats(x.shape.rows, 2), dgain(1, x.shape.columns), dbias = dgain;
  stream<T>(state, 5, [&] {
    kernels::layer_norm_inputs(x.view(), gain.view(), stats.view(), dy.view(), dx.grad());
    kernels::layer_norm_weights(x.view(), stats.view(), dy.view(), dgain.grad(), dbias.grad());
  });
}
template <class T>
void rms_norm(benchmark::State& state) {
  Matrix<T> x(Extent(state.range(0)), Extent(state.range(1))), y = x, gain(1, x.shape.columns);
  Matrix<float> scales(x.shape.rows, 1);
  stream<T>(state, 2, [&] { kernels::rms_norm(x.view(), gain.view(), 1e-6, y.view(), scales.view()); });
}
template <class T>
void rms_norm_pullbacks(benchmark::State& state) {
  Matrix<T> x(Extent(state.range(0)), Extent(state.range(1))), dy = x, dx = x, gain(1, x.shape.columns);
  Matrix<float> scales(x.shape.rows, 1), dgain(1, x.shape.columns);
  stream<T>(state, 5, [&] {
    kernels::rms_norm_inputs(x.view(), gain.view(), scales.view(), dy.view(), dx.grad());
    kernels::rms_norm_weights(x.view(), scales.view(), dy.view(), dgain.grad());
  });
}
template <class T>
void swiglu(benchmark::State& state) {
  Matrix<T> x(Extent(state.range(0)), Extent(state.range(1))), y(x.shape.rows, x.shape.columns / 2);
  stream<T>(state, 1.5, [&] { kernels::swiglu(x.view(), y.view()); });
}
template <class T>
void swiglu_pullback(benchmark::State& state) {
  Matrix<T> x(Extent(state.range(0)), Extent(state.range(1))), dx = x, dy(x.shape.rows, x.shape.columns / 2);
  stream<T>(state, 2.5, [&] { kernels::swiglu_pullback(x.view(), dy.view(), dx.grad()); });
}
/// 32 query heads of 64 channels on 8 keys.
template <class T>
void rope(benchmark::State& state) {
  Matrix<T> x(Extent(state.range(0)), Extent(state.range(1))), y = x;
  std::vector<int> positions(x.shape.rows, 1000);
  stream<T>(state, 2, [&] { kernels::rope(x.view(), {32, 8, 64}, positions, {}, y.view()); });
}
void softmax(benchmark::State& state) {
  Matrix<float> logits(Extent(state.range(0)), Extent(state.range(1))), states(logits.shape.rows, 3);
  std::vector<int> targets(logits.shape.rows, 1);
  stream<float>(state, 3, [&] {
    kernels::softmax_chunk(logits.view(), targets, {0, logits.shape.columns}, states.view(), true);
    kernels::softmax_chunk_pullback(logits.view(), targets, {0, logits.shape.columns}, states.view(), 1);
  });
}
/// 28 bytes an element where the cast result is the master itself.
void adamw(benchmark::State& state) {
  Matrix<float> master(Extent(state.range(0)), Extent(state.range(1))), gradient = master, first = master, second = master;
  for (float& e : second.data) e = std::abs(e);
  stream<float>(state, 7, [&] {
    kernels::adamw({.rate = 1e-6, .correction_1 = 0.1, .correction_2 = 0.001}, master.view(), gradient.view(), first.view(), second.view(),
                   master.view());
  });
}
void squared_norm(benchmark::State& state) {
  Matrix<float> x(Extent(state.range(0)), Extent(state.range(1)));
  stream<float>(state, 1, [&] { benchmark::DoNotOptimize(kernels::squared_norm(x.view())); });
}

void shapes(benchmark::internal::Benchmark* b) { b->Args({256, 3072})->Args({4096, 3072})->UseRealTime(); }
BENCHMARK(copy<float>)->Apply(shapes);
BENCHMARK(copy<bf16>)->Apply(shapes);
BENCHMARK(gelu<float>)->Apply(shapes);
BENCHMARK(gelu<bf16>)->Apply(shapes);
BENCHMARK(gelu_pullback<float>)->Apply(shapes);
BENCHMARK(dropout<float>)->Apply(shapes);
BENCHMARK(column_sums<float>)->Apply(shapes);
BENCHMARK(layer_norm<float>)->Apply(shapes);
BENCHMARK(layer_norm<bf16>)->Apply(shapes);
BENCHMARK(layer_norm_pullbacks<float>)->Apply(shapes);
BENCHMARK(rms_norm<float>)->Apply(shapes);
BENCHMARK(rms_norm<bf16>)->Apply(shapes);
BENCHMARK(rms_norm_pullbacks<float>)->Apply(shapes);
BENCHMARK(swiglu<float>)->Apply(shapes);
BENCHMARK(swiglu<bf16>)->Apply(shapes);
BENCHMARK(swiglu_pullback<float>)->Apply(shapes);
BENCHMARK(rope<float>)->Apply(shapes);
BENCHMARK(rope<bf16>)->Apply(shapes);
BENCHMARK(softmax)->Args({256, 8192})->UseRealTime();
BENCHMARK(adamw)->Apply(shapes)->Args({40000, 3072});
BENCHMARK(squared_norm)->Apply(shapes);

}  // namespace
