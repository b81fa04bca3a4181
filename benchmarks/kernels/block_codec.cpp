// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Packing and unpacking beside a copy, which may write past the cache, a plain loop and a plain read; bytes are those that must be read and written
/// at least. Arguments: elements, which codec.
///
///     OMP_NUM_THREADS=2 build/release/benchmarks/kernels_block_codec
#include <dsx/kernels/block_codec.hpp>
#include <dsx/kernels/elementwise.hpp>
#include <dsx/kernels/optimizer.hpp>

#include <benchmark/benchmark.h>

#include <vector>

namespace {

using namespace dsx;

template <class T>
struct Numbers {
  std::vector<T> data;
  explicit Numbers(Extent n) : data(n) {
    for (Extent i = 0; i < n; ++i) data[i] = T(float(i * 7919 % 1009) - 504.0F);
  }
  View view() { return {data.data(), {data.size(), 1}, element_of<T>, Place::cpu, nullptr}; }
};
struct Packed {
  std::vector<std::uint8_t> data;
  Packed(const Codec& codec, View values) : data(codec.packed_bytes(values.size())) { kernels::quantize(codec, values, view()); }
  View view() { return {data.data(), {data.size(), 1}, Element::u8, Place::cpu, nullptr}; }
};

constexpr std::int64_t elements = 1 << 25;
constexpr Codec codecs[] = {block_int8<256>, block_int4<64>, block_int4<64, Codes::asymmetric>, one_bit};
const Codec& codec_of(benchmark::State& state) {
  const Codec& codec = codecs[state.range(1)];
  state.SetLabel(codec.name());
  return codec;
}

template <class F>
void stream(benchmark::State& state, Extent bytes, const F& call) {
  for (auto _ : state) {
    call();
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(std::int64_t(state.iterations()) * std::int64_t(bytes));
}

template <class T>
void copy(benchmark::State& state) {
  Numbers<T> x(Extent(state.range(0))), y = x;
  stream(state, 2 * x.view().bytes(), [&] { kernels::copy(x.view(), y.view()); });
}
void scale(benchmark::State& state) {
  Numbers<float> x(Extent(state.range(0))), y = x;
  stream(state, 2 * x.view().bytes(), [&] { kernels::scale(x.view(), 2, y.view()); });
}
void squared_norm(benchmark::State& state) {
  Numbers<float> x(Extent(state.range(0)));
  stream(state, x.view().bytes(), [&] { benchmark::DoNotOptimize(kernels::squared_norm(x.view())); });
}
template <class T>
void quantize(benchmark::State& state) {
  const Codec& codec = codec_of(state);
  Numbers<T> x(Extent(state.range(0)));
  Packed packed{codec, x.view()};
  stream(state, x.view().bytes() + packed.data.size(), [&] { kernels::quantize(codec, x.view(), packed.view()); });
}
void with_feedback(benchmark::State& state) {
  const Codec& codec = codec_of(state);
  Numbers<float> x(Extent(state.range(0))), error = x;
  Packed packed{codec, x.view()};
  stream(state, 3 * x.view().bytes() + packed.data.size(), [&] { kernels::quantize_with_feedback(codec, x.view(), error.view(), packed.view()); });
}
template <class T>
void dequantize(benchmark::State& state) {
  const Codec& codec = codec_of(state);
  Numbers<T> x(Extent(state.range(0)));
  Packed packed{codec, x.view()};
  stream(state, x.view().bytes() + packed.data.size(), [&] { kernels::dequantize(codec, packed.view(), {x.view(), false}); });
}
void sum_of_four(benchmark::State& state) {
  const Codec& codec = codec_of(state);
  Numbers<float> x(Extent(state.range(0)));
  Packed a{codec, x.view()}, b = a, c = a, d = a;
  const View all[] = {a.view(), b.view(), c.view(), d.view()};
  stream(state, x.view().bytes() + 4 * a.data.size(), [&] { kernels::dequantize_sum(codec, all, {x.view(), false}); });
}

void shapes(benchmark::internal::Benchmark* b) {
  for (std::int64_t codec = 0; codec < std::int64_t(std::size(codecs)); ++codec) b->Args({elements, codec});
  b->UseRealTime();
}
BENCHMARK(copy<float>)->Arg(elements)->UseRealTime();
BENCHMARK(copy<bf16>)->Arg(elements)->UseRealTime();
BENCHMARK(scale)->Arg(elements)->UseRealTime();
BENCHMARK(squared_norm)->Arg(elements)->UseRealTime();
BENCHMARK(quantize<float>)->Apply(shapes);
BENCHMARK(quantize<bf16>)->Apply(shapes);
BENCHMARK(with_feedback)->Apply(shapes);
BENCHMARK(dequantize<float>)->Apply(shapes);
BENCHMARK(dequantize<bf16>)->Apply(shapes);
BENCHMARK(sum_of_four)->Apply(shapes);

}  // namespace
