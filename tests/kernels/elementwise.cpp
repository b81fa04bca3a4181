// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
#include "comparison.hpp"

#include <dsx/kernels/elementwise.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

TEST_CASE("bf16 rounds to nearest even when kernels convert") {
  Buffer<float> x{{40, 1024}, 3};
  for (int i = 0; i < 256; ++i) x.data[i] = std::bit_cast<float>(0x3F800000U + 0x1000U * unsigned(i));  // ties among them
  x.data[300] = std::numeric_limits<float>::infinity();
  x.data[301] = 1e-40F;
  Buffer<bf16> narrow = Buffer<bf16>::unset(x.shape);
  kernels::copy(x.view(), narrow.view());
  bool same = true;
  for (Extent i = 0; i < x.data.size(); ++i) same = same && narrow.data[i].bits == bf16{x.data[i]}.bits;
  CHECK(same);
  x.data[5] = std::numeric_limits<float>::quiet_NaN();
  kernels::copy(x.view(), narrow.view());
  CHECK(std::isnan(float(narrow.data[5])));
}

TEST_CASE("copies and sums between all elements") {
  for (const Shape shape : odd_shapes)
    for_elements([&](auto from_zero) {
      for_elements([&](auto to_zero) {
        using From = decltype(from_zero);
        using To = decltype(to_zero);
        Buffer<From> x{shape, 1};
        Buffer<To> y = Buffer<To>::unset(shape), sum{shape, 2}, copied = y;
        const auto before = sum;
        kernels::copy(x.view(), copied.view());
        kernels::pass_on(x.view(), y.grad(false));
        kernels::pass_on(x.view(), sum.grad(true));
        std::vector<To> expected(shape.size()), expected_sum(shape.size());
        for (Extent i = 0; i < shape.size(); ++i) {
          reference::put(expected[i], double(x.data[i]), false);
          reference::put(expected_sum[i], double(x.data[i]) + double(before.data[i]), false);
        }
        CHECK(distance(copied.data, expected) == 0);
        CHECK(distance(y.data, expected) == 0);
        CHECK(distance(sum.data, expected_sum) <= rounding<To>);
      });
    });
}

TEST_CASE("scale, add, add_bias and zero") {
  for (const Shape shape : odd_shapes)
    for_elements([&](auto zero) {
      using T = decltype(zero);
      Buffer<T> a{shape, 1}, b{shape, 2}, bias{{1, shape.columns}, 3}, scaled = Buffer<T>::unset(shape), sum = scaled, shifted = scaled;
      kernels::scale(a.view(), -2.5, scaled.view());
      kernels::add(a.view(), b.view(), sum.view());
      kernels::add_bias(a.view(), bias.view(), shifted.view());
      std::vector<double> expected_scaled, expected_sum, expected_shifted;
      for (Extent i = 0; i < shape.size(); ++i) {
        expected_scaled.push_back(-2.5 * double(a.data[i]));
        expected_sum.push_back(double(a.data[i]) + double(b.data[i]));
        expected_shifted.push_back(double(a.data[i]) + double(bias.data[i % shape.columns]));
      }
      CHECK(distance(scaled.data, expected_scaled) <= rounding<T>);
      CHECK(distance(sum.data, expected_sum) <= rounding<T>);
      CHECK(distance(shifted.data, expected_shifted) <= rounding<T>);
      kernels::add_bias(a.view(), bias.view(), a.view());
      CHECK(distance(a, shifted) == 0);
      kernels::zero(a.view());
      CHECK(distance(a.data, std::vector<double>(shape.size())) == 0);
    });
}

TEST_CASE("column sums agree with the reference") {
  for (const Shape shape : odd_shapes)
    for_gradients([&](auto zero, auto grad_zero) {
      using T = decltype(zero);
      using G = decltype(grad_zero);
      for (const bool accumulate : {false, true}) {
        Buffer<T> dy{shape, 4};
        Buffer<G> sums = accumulate ? Buffer<G>{{1, shape.columns}, 5} : Buffer<G>::unset({1, shape.columns}), expected = sums;
        kernels::column_sums(dy.view(), sums.grad(accumulate));
        reference::column_sums(dy.begin(), shape.rows, shape.columns, expected.begin(), accumulate);
        CHECK(distance(sums, expected) <= rounding<G>);
      }
    });
}

TEST_CASE("column sums don't depend on threads") {
  Buffer<float> dy{{1000, 331}, 4};
  CHECK(same_on_any_threads([&] {
    Buffer<float> sums = Buffer<float>::unset({1, 331});
    kernels::column_sums(dy.view(), sums.grad(false));
    return sums.data;
  }));
}

TEST_CASE("GELU and its slope agree with the reference") {
  for (const Shape shape : odd_shapes)
    for (const Gelu form : {Gelu::tanh, Gelu::erf})
      for_gradients([&](auto zero, auto grad_zero) {
        using T = decltype(zero);
        using G = decltype(grad_zero);
        for (const bool accumulate : {false, true}) {
          Buffer<T> x{shape, 6, 6}, dy{shape, 7}, y = Buffer<T>::unset(shape);
          Buffer<G> dx = accumulate ? Buffer<G>{shape, 8} : Buffer<G>::unset(shape);
          std::vector<double> expected, expected_slope;
          for (Extent i = 0; i < shape.size(); ++i) {
            expected.push_back(reference::gelu(x.data[i], form));
            expected_slope.push_back(double(dy.data[i]) * reference::gelu_slope(x.data[i], form) + (accumulate ? double(dx.data[i]) : 0));
          }
          kernels::gelu(x.view(), y.view(), form);
          kernels::gelu_pullback(x.view(), dy.view(), dx.grad(accumulate), form);
          CHECK(distance(y.data, expected) <= rounding<T>);
          CHECK(distance(dx.data, expected_slope) <= rounding<G>);
        }
      });
}

TEST_CASE("GELU in single precision is right to some units in the last place at every size of x") {
  for (const Gelu form : {Gelu::tanh, Gelu::erf}) {
    std::vector<float> points{0.0F, -0.0F, 1e-30F, -1e-30F, 100.0F, -100.0F, 3e4F, -3e4F, 3e38F, -3e38F};
    for (float x = -9; x < 9; x += 0.01F) points.push_back(x);
    const Shape shape{1, points.size()};
    Buffer<float> x{shape, points}, y = Buffer<float>::unset(shape), ones{shape, std::vector<float>(points.size(), 1)}, slope = y;
    kernels::gelu(x.view(), y.view(), form);
    kernels::gelu_pullback(x.view(), ones.view(), slope.grad(false), form);
    double worst = 0, worst_slope = 0;
    for (Extent i = 0; i < points.size(); ++i) {
      const double exact = reference::gelu(points[i], form),
                   exact_slope = std::abs(points[i]) > 1e4F ? (points[i] > 0) : reference::gelu_slope(points[i], form);
      if (std::abs(points[i]) > 5) {
        CHECK(std::abs(double(y.data[i]) - exact) <= 1e-6 * std::abs(points[i]));
      } else {
        worst = std::max(worst, std::abs(double(y.data[i]) - exact) / std::max(1e-2, std::abs(exact)));
      }
      worst_slope = std::max(worst_slope, std::abs(double(slope.data[i]) - exact_slope));
    }
    CHECK(worst < 1e-6);
    CHECK(worst_slope < 1e-6);
  }
}

TEST_CASE("GELU's pullback is its derivative") {
  for (const Gelu form : {Gelu::tanh, Gelu::erf}) {
    const Shape shape{3, 11};
    Buffer<double> x{shape, 1, 3}, dy{shape, 2}, y = Buffer<double>::unset(shape), dx = y;
    kernels::gelu_pullback(x.view(), dy.view(), dx.grad(false), form);
    const auto slopes = central_differences(x.data, [&] { return kernels::gelu(x.view(), y.view(), form), weighted(y.data, dy.data); }, 1e-3);
    CHECK(distance(dx.data, slopes) < 1e-9);
  }
}

TEST_CASE("the pullbacks of a bias and of a sum over rows are their derivatives") {
  const Shape shape{5, 13};
  Buffer<double> x{shape, 1}, bias{{1, 13}, 2}, dy{shape, 3}, y = Buffer<double>::unset(shape), dbias = Buffer<double>::unset({1, 13});
  kernels::column_sums(dy.view(), dbias.grad(false));
  const auto slopes = central_differences(bias.data, [&] { return kernels::add_bias(x.view(), bias.view(), y.view()), weighted(y.data, dy.data); });
  CHECK(distance(dbias.data, slopes) < 1e-9);
}

TEST_CASE("dropout draws exactly the words of the counter") {
  const RandomKey key{.seed = 0x1234567890ABCDEF, .step = 7, .unit = 3, .ordinal = 2};
  for (const Shape shape : odd_shapes)
    for (const Extent first_column : {0, 1, 6, 768})
      for (const double rate : {0.0, 0.1, 0.5, 0.99})
        for_gradients([&](auto zero, auto grad_zero) {
          using T = decltype(zero);
          using G = decltype(grad_zero);
          Buffer<T> x{shape, 9};
          std::vector<RowId> ids;
          for (Extent r = 0; r < shape.rows; ++r) ids.push_back(r * 0x100000001ULL + 5);
          for (const bool accumulate : {false, true}) {
            Buffer<G> y = accumulate ? Buffer<G>{shape, 10} : Buffer<G>::unset(shape), expected = y;
            kernels::dropout(x.view(), y.grad(accumulate), ids.data(), first_column, rate, key);
            reference::dropout(x.begin(), shape.rows, shape.columns, expected.begin(), accumulate, ids.data(), first_column, rate, key);
            // Not accumulated, the bits are the reference's; a sum may be rounded once more there.
            CHECK(distance(y, expected) <= (accumulate ? rounding<G> : std::is_same_v<T, G> ? 0 : 1e-7));
          }
        });
}

TEST_CASE("dropout keeps the mean, and its own call is its pullback") {
  const Shape shape{200, 500};
  const RandomKey key{.seed = 1, .step = 2};
  Buffer<float> x{shape, std::vector<float>(shape.size(), 1)}, y = Buffer<float>::unset(shape);
  std::vector<RowId> ids(shape.rows);
  for (Extent r = 0; r < shape.rows; ++r) ids[r] = r;
  kernels::dropout(x.view(), y.grad(false), ids.data(), 0, 0.25, key);
  double sum = 0, zeros = 0;
  for (const float e : y.data) sum += e, zeros += e == 0;
  CHECK(std::abs(sum / double(shape.size()) - 1) < 0.01);
  CHECK(std::abs(zeros / double(shape.size()) - 0.25) < 0.01);
}

TEST_CASE("elementwise kernels refuse what they can't compute") {
  Buffer<float> x{{3, 4}, 1}, other{{3, 5}, 2};
  Buffer<double> wide{{3, 4}, 3};
  const auto number = [](const auto& call) {
    try {
      call();
    } catch (const Error& error) {
      return error.number();
    }
    return 0;
  };
  CHECK(number([&] { kernels::add(x.view(), other.view(), x.view()); }) == 301);
  CHECK(number([&] { kernels::add(x.view(), wide.view(), x.view()); }) == 405);
  CHECK(number([&] { kernels::gelu_pullback(x.view(), x.view(), wide.grad(false), Gelu::tanh); }) == 405);
  View strange = x.view();
  strange.element = Element::i32;
  CHECK(number([&] { kernels::scale(strange, 2, strange); }) == 405);
  View elsewhere = x.view();
  elsewhere.place = Place::cuda;
  CHECK(number([&] { kernels::add(elsewhere, elsewhere, elsewhere); }) == 405);
}
