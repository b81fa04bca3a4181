// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The CUDA GELU and its pullback against their formulas in double, whole packs, tails and misaligned views.
///
///     check<bf16>(33, 1);   // 33 elements that begin one element behind a boundary
#ifdef DSX_NATIVE_CUDA
#include "../../kernels/cuda/launchers.hpp"
#else
#include "../support/cuda_emulation.hpp"

#include "../../kernels/cuda/gelu.cu"
#endif

#include "device_buffer.hpp"

using namespace dsx;
using namespace dsx::test;

namespace {

double gelu_of(double x, Gelu form) {
  if (form == Gelu::erf) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * std::pow(x, 3))));
}
double slope_of(double x, Gelu form) {
  if (form == Gelu::erf) return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
  const double t = std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * std::pow(x, 3)));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
}

template <class T>
void check(Extent size, Extent shift, Gelu form) {
  CAPTURE(size); CAPTURE(shift); CAPTURE(form == Gelu::erf);
  std::vector<double> x = rounded<T>(numbers(size, 1, -5, 5)), dy = rounded<T>(numbers(size, 2)), before = rounded<T>(numbers(size, 3)), y, dx, sum;
  for (std::size_t i = 0; i < std::min<std::size_t>(size, 4); ++i) x[i] = std::vector<double>{0, -30, 30, 1}[i];
  for (Extent i = 0; i < size; ++i) {
    y.push_back(gelu_of(x[i], form));
    dx.push_back(dy[i] * slope_of(x[i], form));
    sum.push_back(before[i] + dx[i]);
  }
  const DeviceBuffer<T> on_x{cast<T>(x), shift}, on_dy{cast<T>(dy), shift};
  in_each_order({0, 1, 2}, [&] {
    const DeviceBuffer<T> on_y{size, shift};
    launched([&](void* stream) { cuda::gelu(on_x.column(), on_y.column(), form, stream); });
    CHECK(distance(on_y.read(), y) < tolerance<T>);
    for (const bool accumulate : {false, true}) {
      const DeviceBuffer<T> on_dx{cast<T>(before), shift};
      launched([&](void* stream) { cuda::gelu_pullback(on_x.column(), on_dy.column(), {on_dx.column(), accumulate}, form, stream); });
      CHECK(distance(on_dx.read(), accumulate ? sum : dx) < tolerance<T>);
    }
  });
}

}  // namespace

TEST_CASE("the CUDA GELU and its pullback equal their formulas") {
  for (const Gelu form : {Gelu::tanh, Gelu::erf})
    for (const Extent shift : {0, 1})
      for (const Extent size : {1, 15, 16, 33, 7 * 33, 64 * 130, 3 * 4099}) {
        check<float>(size, shift, form);
        check<double>(size, shift, form);
        check<bf16>(size, shift, form);
      }
}

TEST_CASE("the CUDA GELU of more elements than its grid has threads visits each once") {
  const Extent size = 4 * 256 * 2048 + 5;
  const DeviceBuffer<float> x{std::vector<float>(size, 1.0F)}, dx{std::vector<float>(size, 2.0F)};
  launched([&](void* stream) { cuda::gelu_pullback(x.column(), x.column(), {dx.column(), true}, Gelu::erf, stream); });
  const float wanted = 2 + float(slope_of(1, Gelu::erf));
  const std::vector<float> result = dx.read();
  CHECK(std::all_of(result.begin(), result.end(), [&](float d) { return std::abs(d - wanted) < 1e-5F; }));
}

TEST_CASE("the CUDA GELU does nothing for no elements and refuses integers") {
  launched([&](void* stream) { cuda::gelu({nullptr, {0, 7}}, {nullptr, {0, 7}}, Gelu::tanh, stream); });
  const View integers{nullptr, {1, 4}, Element::i32};
  CHECK_THROWS_WITH_AS(cuda::gelu(integers, integers, Gelu::tanh, nullptr), doctest::Contains("dsx-E405"), Error);
}
