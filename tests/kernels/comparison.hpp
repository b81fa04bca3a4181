// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What the kernels' tests share: buffers of random numbers, distances between a kernel's answer and its reference's, central differences.
///
///     Buffer<bf16> x{{7, 33}, 1};                                // uniform in [-1, 1), by seed
///     Buffer<float> y = Buffer<float>::unset({7, 33});           // NaN, so that what a kernel leaves out shows
///     CHECK(distance(y, expected) < rounding<bf16>);
#pragma once

#include <dsx/core/random.hpp>
#include <dsx/tensor/view.hpp>

#include <cmath>
#include <limits>
#include <vector>

/// Of the program's OpenMP runtime, if it has one.
extern "C" __attribute__((weak)) void omp_set_num_threads(int);

namespace dsx::test {

template <class T>
struct Buffer {
  Shape shape;
  std::vector<T> data;

  Buffer(Shape s, std::uint64_t seed, double scale = 1) : shape{s}, data(s.size()) {
    for (Extent i = 0; i < data.size(); ++i) data[i] = T(Wide<T>(scale * (2 * double(uniform({.seed = seed}, i, 0)) - 1)));
  }
  Buffer(Shape s, std::vector<T> values) : shape{s}, data(std::move(values)) {}
  static Buffer unset(Shape s) { return {s, std::vector<T>(s.size(), T(std::numeric_limits<float>::quiet_NaN()))}; }

  T* begin() { return data.data(); }
  const T* begin() const { return data.data(); }
  View view() { return {data.data(), shape, element_of<T>, Place::cpu, nullptr}; }
  Grad grad(bool accumulate) { return {view(), accumulate}; }
};

/// The largest difference, relative to the reference's largest element; infinite where anything but the reference's own NaN isn't a number.
template <class A, class B>
double distance(const std::vector<A>& fast, const std::vector<B>& reference) {
  if (fast.size() != reference.size()) return std::numeric_limits<double>::infinity();
  double most = 0, largest = 1e-30;
  for (Extent i = 0; i < fast.size(); ++i) {
    const double difference = std::abs(double(fast[i]) - double(reference[i]));
    if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
    most = std::max(most, difference), largest = std::max(largest, std::abs(double(reference[i])));
  }
  return most / largest;
}
template <class A, class B>
double distance(const Buffer<A>& fast, const Buffer<B>& reference) {
  return distance(fast.data, reference.data);
}

/// What a result of type T may differ from sums in double.
template <class T>
inline constexpr double rounding = 2e-6;
template <>
inline constexpr double rounding<double> = 1e-13;
template <>
inline constexpr double rounding<bf16> = 8e-3;

/// f(T{}) for each element type.
template <class F>
void for_elements(const F& f) {
  f(float{}), f(double{}), f(bf16{});
}
/// f(T{}, G{}) for each element type and each that its gradients may hold.
template <class F>
void for_gradients(const F& f) {
  f(float{}, float{}), f(double{}, double{}), f(bf16{}, bf16{}), f(bf16{}, float{});
}

inline constexpr Shape odd_shapes[] = {{0, 5}, {1, 1}, {3, 5}, {7, 33}, {64, 130}, {5, 1024}, {129, 70}};

/// The gradient of a scalar function of x by central differences, where `at` evaluates it; x is given back as it was.
template <class F>
std::vector<double> central_differences(std::vector<double>& x, const F& at, double step = 1e-5) {
  std::vector<double> slopes(x.size());
  for (Extent i = 0; i < x.size(); ++i) {
    const double kept = x[i];
    // Four points: the error is of fourth order in the step.
    const auto value = [&](double shift) { return x[i] = kept + shift, at(); };
    slopes[i] = (8 * (value(step) - value(-step)) - (value(2 * step) - value(-2 * step))) / (12 * step);
    x[i] = kept;
  }
  return slopes;
}

/// The sum of weights times values: a scalar whose gradient towards the values is the weights.
inline double weighted(const std::vector<double>& values, const std::vector<double>& weights) {
  double sum = 0;
  for (Extent i = 0; i < values.size(); ++i) sum += values[i] * weights[i];
  return sum;
}

/// f() on one OpenMP thread and on three: whether the results are the same bits.
template <class F>
bool same_on_any_threads(const F& f) {
  if (!omp_set_num_threads) return f() == f();
  omp_set_num_threads(1);
  const auto alone = f();
  omp_set_num_threads(3);
  const auto together = f(), again = f();
  omp_set_num_threads(2);
  return alone == together && together == again;
}

}  // namespace dsx::test
