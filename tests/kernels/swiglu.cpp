// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
#include "comparison.hpp"

#include <dsx/core/error.hpp>
#include <dsx/kernels/swiglu.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

TEST_CASE("swiglu and its pullback agree with the reference") {
  for (const Shape shape : odd_shapes)
    for_gradients([&](auto zero, auto grad_zero) {
      using T = decltype(zero);
      using G = decltype(grad_zero);
      const Shape both{shape.rows, 2 * shape.columns};
      Buffer<T> x{both, 1, 5}, dy{shape, 2}, y = Buffer<T>::unset(shape), expected = y;
      kernels::swiglu(x.view(), y.view());
      reference::swiglu(x.begin(), shape.rows, shape.columns, expected.begin());
      CHECK(distance(y, expected) <= rounding<T>);
      for (const bool accumulate : {false, true}) {
        Buffer<G> dx = accumulate ? Buffer<G>{both, 3} : Buffer<G>::unset(both), expected_dx = dx;
        kernels::swiglu_pullback(x.view(), dy.view(), dx.grad(accumulate));
        reference::swiglu_pullback(x.begin(), dy.begin(), shape.rows, shape.columns, expected_dx.begin(), accumulate);
        CHECK(distance(dx, expected_dx) <= rounding<G>);
      }
    });
}

TEST_CASE("swiglu's pullback is its derivative") {
  const Shape shape{3, 19}, both{3, 38};
  Buffer<double> x{both, 1, 2}, dy{shape, 2}, y = Buffer<double>::unset(shape), dx = Buffer<double>::unset(both);
  kernels::swiglu_pullback(x.view(), dy.view(), dx.grad(false));
  const auto loss = [&] {
    kernels::swiglu(x.view(), y.view());
    return weighted(y.data, dy.data);
  };
  CHECK(distance(dx.data, central_differences(x.data, loss, 1e-3)) < 1e-9);
}

TEST_CASE("swiglu of gates far from zero is finite, and a NaN stays one") {
  const auto of = [](float gate) {
    Buffer<float> x{{1, 2}, std::vector<float>{gate, 2}}, y = Buffer<float>::unset({1, 1}), dy{{1, 1}, std::vector<float>{1}}, dx = x;
    kernels::swiglu(x.view(), y.view());
    kernels::swiglu_pullback(x.view(), dy.view(), dx.grad(false));
    return std::array{y.data[0], dx.data[0], dx.data[1]};
  };
  CHECK(of(1000) == std::array{2000.0F, 2.0F, 1000.0F});
  for (const float zero : of(-1000)) CHECK(std::abs(zero) < 1e-30F);
  for (const float lost : of(std::numeric_limits<float>::quiet_NaN())) CHECK(std::isnan(lost));
}

TEST_CASE("swiglu refuses results that aren't half as wide as its gates and values") {
  Buffer<float> x{{3, 8}, 1}, y{{3, 4}, 2}, wide{{3, 5}, 3};
  Buffer<double> other{{3, 4}, 4};
  const auto number = [&](View to) {
    try {
      kernels::swiglu(x.view(), to);
    } catch (const Error& error) {
      return error.number();
    }
    return 0;
  };
  CHECK(number(y.view()) == 0);
  CHECK(number(wide.view()) == 301);
  CHECK(number(other.view()) == 405);
}
