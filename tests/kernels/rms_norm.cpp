// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
#include "comparison.hpp"

#include <dsx/core/error.hpp>
#include <dsx/kernels/rms_norm.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

TEST_CASE("rms norm and its pullbacks agree with the reference") {
  for (const Shape shape : odd_shapes)
    for_gradients([&](auto zero, auto grad_zero) {
      using T = decltype(zero);
      using G = decltype(grad_zero);
      using W = Wide<T>;
      const Shape row{1, shape.columns};
      Buffer<T> x{shape, 1, 3}, gain{row, 2}, dy{shape, 4}, y = Buffer<T>::unset(shape), expected = y;
      Buffer<W> scales = Buffer<W>::unset({shape.rows, 1}), expected_scales = scales;
      kernels::rms_norm(x.view(), gain.view(), 1e-6, y.view(), scales.view());
      reference::rms_norm(x.begin(), gain.begin(), 1e-6, shape.rows, shape.columns, expected.begin(), expected_scales.begin());
      CHECK(distance(y, expected) <= rounding<T>);
      CHECK(distance(scales, expected_scales) <= 2 * rounding<W>);
      for (const bool accumulate : {false, true}) {
        const auto gradient = [&](Shape s) { return accumulate ? Buffer<G>{s, 5} : Buffer<G>::unset(s); };
        Buffer<G> dx = gradient(shape), expected_dx = dx, dgain = gradient(row), expected_gain = dgain;
        kernels::rms_norm_inputs(x.view(), gain.view(), expected_scales.view(), dy.view(), dx.grad(accumulate));
        kernels::rms_norm_weights(x.view(), expected_scales.view(), dy.view(), dgain.grad(accumulate));
        reference::rms_norm_inputs(x.begin(), gain.begin(), expected_scales.begin(), dy.begin(), shape.rows, shape.columns, expected_dx.begin(),
                                   accumulate);
        reference::rms_norm_weights(x.begin(), expected_scales.begin(), dy.begin(), shape.rows, shape.columns, expected_gain.begin(), accumulate);
        if (shape.columns > 1) CHECK(distance(dx, expected_dx) <= rounding<G>);  // of one column the gradient is rounding alone
        CHECK(distance(dgain, expected_gain) <= rounding<G>);
      }
    });
}

TEST_CASE("rms norm's pullbacks are its derivatives") {
  const Shape shape{3, 19}, row{1, 19};
  Buffer<double> x{shape, 1}, gain{row, 2}, dy{shape, 4}, y = Buffer<double>::unset(shape), scales = Buffer<double>::unset({3, 1});
  Buffer<double> dx = y, dgain = Buffer<double>::unset(row);
  const auto loss = [&] {
    kernels::rms_norm(x.view(), gain.view(), 1e-5, y.view(), scales.view());
    return weighted(y.data, dy.data);
  };
  loss();
  kernels::rms_norm_inputs(x.view(), gain.view(), scales.view(), dy.view(), dx.grad(false));
  kernels::rms_norm_weights(x.view(), scales.view(), dy.view(), dgain.grad(false));
  CHECK(distance(dx.data, central_differences(x.data, loss, 1e-3)) < 1e-9);
  CHECK(distance(dgain.data, central_differences(gain.data, loss, 1e-3)) < 1e-9);
}

TEST_CASE("the gradient of rms norm's gain doesn't depend on threads") {
  Buffer<float> x{{700, 259}, 1}, dy{{700, 259}, 2}, scales{{700, 1}, 3};
  CHECK(same_on_any_threads([&] {
    Buffer<float> dgain = Buffer<float>::unset({1, 259});
    kernels::rms_norm_weights(x.view(), scales.view(), dy.view(), dgain.grad(false));
    return dgain.data;
  }));
}

TEST_CASE("rms norm refuses gains and scales that don't fit its rows") {
  Buffer<float> x{{3, 4}, 1}, gain{{1, 4}, 2}, few{{1, 3}, 3}, scales{{3, 1}, 4};
  Buffer<double> wide{{3, 1}, 5};
  const auto number = [&](Buffer<float>& g, View s) {
    try {
      kernels::rms_norm(x.view(), g.view(), 1e-5, x.view(), s);
    } catch (const Error& error) {
      return error.number();
    }
    return 0;
  };
  CHECK(number(gain, scales.view()) == 0);
  CHECK(number(few, scales.view()) == 301);
  CHECK(number(gain, wide.view()) == 405);
}
