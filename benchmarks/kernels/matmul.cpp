// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Products of GPT-2 124M's shapes, B = 4 sequences of T = 64; arguments: m, n, k, transposed a, transposed b. FLOP/s as a counter.
///
///     OMP_NUM_THREADS=1 build/release/benchmarks/kernels_matmul
#include <dsx/kernels/matmul.hpp>

#include <benchmark/benchmark.h>

#include <vector>

#if DSX_HAS_ONEDNN
#include <dnnl.hpp>
#endif

namespace {

using namespace dsx;

template <class T>
void product(benchmark::State& state) {
  const Extent m = Extent(state.range(0)), n = Extent(state.range(1)), k = Extent(state.range(2));
  const bool a_transposed = state.range(3), b_transposed = state.range(4);
  std::vector<T> a(m * k, T(0.5F)), b(k * n, T(0.25F)), c(m * n);
  const auto view = [](std::vector<T>& x, Shape shape) { return View{x.data(), shape, element_of<T>, Place::cpu, nullptr}; };
  const kernels::Matrix left{view(a, a_transposed ? Shape{k, m} : Shape{m, k}), a_transposed};
  const kernels::Matrix right{view(b, b_transposed ? Shape{n, k} : Shape{k, n}), b_transposed};
  const View out = view(c, {m, n});
  std::vector<std::byte> scratch(kernels::matmul_scratch(left, right, out));
  const View space{scratch.data(), {scratch.size(), 1}, Element::u8, Place::cpu, nullptr};
  for (auto _ : state) kernels::matmul(left, right, {out, false}, {}, space);
  state.counters["FLOP/s"] = benchmark::Counter(2.0 * double(m * n * k), benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

void shapes(benchmark::internal::Benchmark* b) {
  for (const std::vector<std::int64_t>& shape : std::vector<std::vector<std::int64_t>>{{256, 2304, 768, 0, 0},
                                                                                       {256, 3072, 768, 0, 0},
                                                                                       {256, 768, 3072, 0, 0},
                                                                                       {256, 768, 3072, 0, 1},
                                                                                       {768, 3072, 256, 1, 0},
                                                                                       {256, 8192, 768, 0, 1},
                                                                                       {1, 3072, 768, 0, 0},
                                                                                       {1, 50257, 768, 0, 1}})
    b->Args(shape);
  b->UseRealTime();
}
BENCHMARK(product<float>)->Apply(shapes);

#if DSX_HAS_ONEDNN
/// The same product by oneDNN, its primitive made beforehand, in plain layouts.
void onednn(benchmark::State& state) {
  const dnnl::memory::dim m = state.range(0), n = state.range(1), k = state.range(2);
  const auto layout = [](dnnl::memory::dim rows, dnnl::memory::dim columns, bool transposed) {
    return dnnl::memory::desc{
        {rows, columns}, dnnl::memory::data_type::f32, transposed ? dnnl::memory::format_tag::ba : dnnl::memory::format_tag::ab};
  };
  std::vector<float> a(std::size_t(m * k), 0.5F), b(std::size_t(k * n), 0.25F), c(std::size_t(m * n));
  const dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  const auto left = layout(m, k, state.range(3)), right = layout(k, n, state.range(4)), out = layout(m, n, false);
  const dnnl::matmul matmul{dnnl::matmul::primitive_desc{dnnl::matmul::desc{left, right, out}, engine}};
  const std::unordered_map<int, dnnl::memory> arguments{{DNNL_ARG_SRC, dnnl::memory{left, engine, a.data()}},
                                                        {DNNL_ARG_WEIGHTS, dnnl::memory{right, engine, b.data()}},
                                                        {DNNL_ARG_DST, dnnl::memory{out, engine, c.data()}}};
  for (auto _ : state) matmul.execute(stream, arguments), stream.wait();
  state.counters["FLOP/s"] = benchmark::Counter(2.0 * double(m * n * k), benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}
BENCHMARK(onednn)->Apply(shapes);
#endif
BENCHMARK(product<bf16>)->Apply(shapes);

}  // namespace
