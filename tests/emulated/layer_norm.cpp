// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The CUDA layer norm against plain loops in double, on shapes that divide nothing, in several orders of threads and blocks.
///
///     check_forward<bf16, float>({7, 33}, 0);
#ifdef DSX_NATIVE_CUDA
#include "../../kernels/cuda/launchers.hpp"
#else
#include "../support/cuda_emulation.hpp"

#include "../../kernels/cuda/layer_norm.cu"
#endif

#include "device_buffer.hpp"

using namespace dsx;
using namespace dsx::test;

namespace {

constexpr double epsilon = 1e-5;

struct Case {
  Shape shape;
  Extent shift;  // of rows, in elements
};
// A warp a row and a block a row, packs and single elements, kept in shared memory and too wide for it.
constexpr Case cases[] = {{{1, 1}, 0},    {{3, 5}, 0},    {{7, 33}, 0},   {{64, 130}, 0}, {{5, 1024}, 0},
                          {{5, 1024}, 1}, {{3, 4099}, 0}, {{2, 2048}, 0}, {{2, 2048}, 3}, {{1, 20'488}, 0}};

/// All that belongs to one shape: operands as rounded to T and G, results in double.
struct Reference {
  std::vector<double> x, gain, bias, dy, before, y, stats, dx, dgain, dbias;

  template <class T, class G>
  static Reference of(Shape shape) {
    const auto [rows, columns] = shape;
    Reference r;
    r.x = rounded<T>(numbers(shape.size(), 1, -1, 3));
    r.dy = rounded<T>(numbers(shape.size(), 2));
    r.before = rounded<T>(numbers(shape.size(), 3));
    r.gain = rounded<G>(numbers(columns, 4));
    r.bias = rounded<G>(numbers(columns, 5));
    r.y.resize(shape.size()), r.dx.resize(shape.size()), r.stats.resize(2 * rows), r.dgain.resize(columns), r.dbias.resize(columns);
    for (Extent i = 0; i < rows; ++i) {
      const double *x = &r.x[i * columns], *dy = &r.dy[i * columns];
      double mean = 0, variance = 0, mean_h = 0, mean_hn = 0;
      for (Extent c = 0; c < columns; ++c) mean += x[c] / double(columns);
      for (Extent c = 0; c < columns; ++c) variance += (x[c] - mean) * (x[c] - mean) / double(columns);
      const double reciprocal = 1 / std::sqrt(variance + epsilon);
      r.stats[2 * i] = mean, r.stats[2 * i + 1] = reciprocal;
      for (Extent c = 0; c < columns; ++c) {
        const double n = (x[c] - mean) * reciprocal;
        r.y[i * columns + c] = n * r.gain[c] + r.bias[c];
        mean_h += dy[c] * r.gain[c] / double(columns);
        mean_hn += dy[c] * r.gain[c] * n / double(columns);
        r.dgain[c] += dy[c] * n;
        r.dbias[c] += dy[c];
      }
      for (Extent c = 0; c < columns; ++c) r.dx[i * columns + c] = reciprocal * (dy[c] * r.gain[c] - mean_h - (x[c] - mean) * reciprocal * mean_hn);
    }
    return r;
  }
};

std::vector<double> sum(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> result = a;
  for (std::size_t i = 0; i < a.size(); ++i) result[i] += b[i];
  return result;
}

template <class T, class G>
void check_forward(Shape shape, Extent shift) {
  const Reference r = Reference::of<T, G>(shape);
  const DeviceBuffer<T> x{cast<T>(r.x), shift};
  const DeviceBuffer<G> gain{cast<G>(r.gain)}, bias{cast<G>(r.bias)};
  std::vector<T> first;
  in_each_order({0, 1, 2}, [&] {
    const DeviceBuffer<T> y{shape.size(), shift};
    const DeviceBuffer<Wide<T>> stats{2 * shape.rows};
    launched([&](void* stream) {
      cuda::layer_norm(x.view(shape), gain.column(), bias.column(), epsilon, y.view(shape), stats.view({shape.rows, 2}), stream);
    });
    const std::vector<T> result = y.read();
    CHECK(distance(result, r.y) < tolerance<T>);
    CHECK(distance(stats.read(), r.stats) < tolerance<Wide<T>>);
    if (first.empty()) first = result;
    CHECK(same_bits(result, first));
  });
}

template <class T, class G>
void check_inputs(Shape shape, Extent shift) {
  const Reference r = Reference::of<T, G>(shape);
  const DeviceBuffer<T> x{cast<T>(r.x), shift}, dy{cast<T>(r.dy), shift};
  const DeviceBuffer<G> gain{cast<G>(r.gain)};
  const DeviceBuffer<Wide<T>> stats{cast<Wide<T>>(r.stats)};
  for (const bool accumulate : {false, true}) {
    CAPTURE(accumulate);
    std::vector<T> first;
    in_each_order({0, 3}, [&] {
      const DeviceBuffer<T> dx{cast<T>(r.before), shift};
      launched([&](void* stream) {
        cuda::layer_norm_inputs(x.view(shape), gain.column(), stats.view({shape.rows, 2}), dy.view(shape), {dx.view(shape), accumulate}, stream);
      });
      const std::vector<T> result = dx.read();
      // One element a row has no gradient but what rounding of the mean leaves, times the reciprocal deviation of 300.
      CHECK(distance(result, accumulate ? sum(r.before, r.dx) : r.dx) < tolerance<T>);
      if (first.empty()) first = result;
      CHECK(same_bits(result, first));
    });
  }
}

template <class T, class G>
void check_weights(Shape shape, Extent shift, bool with_scratch) {
  const Reference r = Reference::of<T, G>(shape);
  const std::vector<double> before = rounded<G>(numbers(shape.columns, 6));
  const DeviceBuffer<T> x{cast<T>(r.x), shift}, dy{cast<T>(r.dy), shift};
  const DeviceBuffer<Wide<T>> stats{cast<Wide<T>>(r.stats)};
  const Shape scratch_shape = with_scratch ? cuda::layer_norm_scratch(shape) : Shape{};
  for (const bool accumulate : {false, true}) {
    CAPTURE(accumulate);
    std::vector<G> first;
    in_each_order({0, 4}, [&] {
      const DeviceBuffer<G> dgain{cast<G>(before)}, dbias{cast<G>(before)};
      const DeviceBuffer<Wide<T>> scratch{std::vector<Wide<T>>(scratch_shape.size(), std::nan(""))};
      const View scratch_view = scratch_shape.size() > 0 ? scratch.view(scratch_shape) : View{};
      launched([&](void* stream) {
        cuda::layer_norm_weights(x.view(shape), stats.view({shape.rows, 2}), dy.view(shape), {dgain.column(), accumulate},
                                 {dbias.column(), !accumulate}, scratch_view, stream);
      });
      const std::vector<G> result = dgain.read();
      CHECK(distance(result, accumulate ? sum(before, r.dgain) : r.dgain) < tolerance<G>);
      CHECK(distance(dbias.read(), accumulate ? r.dbias : sum(before, r.dbias)) < tolerance<G>);
      scratch.read();
      if (first.empty()) first = result;
      CHECK(same_bits(result, first));
    });
  }
}

template <class F>
void for_all_elements(F f) {
  f(float{}, float{}), f(double{}, double{}), f(bf16{}, bf16{}), f(bf16{}, float{});
}

}  // namespace

TEST_CASE("the CUDA layer norm equals plain loops") {
  for (const auto& [shape, shift] : cases) {
    CAPTURE(shape.rows); CAPTURE(shape.columns); CAPTURE(shift);
    for_all_elements([&](auto row, auto weight) { check_forward<decltype(row), decltype(weight)>(shape, shift); });
  }
}

TEST_CASE("the CUDA layer norm's pullback to its inputs equals plain loops") {
  for (const auto& [shape, shift] : cases) {
    CAPTURE(shape.rows); CAPTURE(shape.columns); CAPTURE(shift);
    for_all_elements([&](auto row, auto weight) { check_inputs<decltype(row), decltype(weight)>(shape, shift); });
  }
}

TEST_CASE("the CUDA layer norm's pullback to gain and bias equals plain loops") {
  for (const auto& [shape, shift] :
       {Case{{1, 1}, 0}, Case{{3, 5}, 0}, Case{{7, 33}, 0}, Case{{64, 130}, 0}, Case{{5, 1024}, 1}, Case{{300, 136}, 0}, Case{{257, 67}, 0}}) {
    CAPTURE(shape.rows); CAPTURE(shape.columns); CAPTURE(shift);
    for (const bool with_scratch : {false, true})
      for_all_elements([&](auto row, auto weight) { check_weights<decltype(row), decltype(weight)>(shape, shift, with_scratch); });
  }
}

TEST_CASE("the CUDA layer norm does nothing for no rows") {
  const DeviceBuffer<float> gain{std::vector<float>(8)}, dgain{std::vector<float>(8, 3.0F)};
  launched([&](void* stream) {
    cuda::layer_norm({nullptr, {0, 8}}, gain.column(), gain.column(), epsilon, {nullptr, {0, 8}}, {nullptr, {0, 2}}, stream);
  });
  launched([&](void* stream) {
    cuda::layer_norm_weights({nullptr, {0, 8}}, {nullptr, {0, 2}}, {nullptr, {0, 8}}, {dgain.column(), true}, {dgain.column(), true}, {}, stream);
  });
  CHECK(dgain.read() == std::vector<float>(8, 3.0F));
}

TEST_CASE("the CUDA layer norm refuses elements that it has no kernel for") {
  const View x{nullptr, {2, 8}, Element::f64}, gain{nullptr, {8, 1}, Element::f32}, stats{nullptr, {2, 2}, Element::f64};
  try {
    cuda::layer_norm(x, gain, gain, epsilon, x, stats, nullptr);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.number() == 405);
  }
}
