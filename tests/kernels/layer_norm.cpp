// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
#include "comparison.hpp"

#include <dsx/kernels/layer_norm.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

TEST_CASE("layer norm and its pullbacks agree with the reference") {
  for (const Shape shape : odd_shapes)
    for_gradients([&](auto zero, auto grad_zero) {
      using T = decltype(zero);
      using G = decltype(grad_zero);
      using W = Wide<T>;
      const Shape row{1, shape.columns};
      Buffer<T> x{shape, 1, 3}, gain{row, 2}, bias{row, 3}, dy{shape, 4}, y = Buffer<T>::unset(shape), expected = y;
      Buffer<W> stats = Buffer<W>::unset({shape.rows, 2}), expected_stats = stats;
      for (T& e : x.data) e = T(Wide<T>(e) + W(1.5));
      kernels::layer_norm(x.view(), gain.view(), bias.view(), 1e-5, y.view(), stats.view());
      reference::layer_norm(x.begin(), gain.begin(), bias.begin(), 1e-5, shape.rows, shape.columns, expected.begin(), expected_stats.begin());
      CHECK(distance(y, expected) <= rounding<T>);
      CHECK(distance(stats, expected_stats) <= 2 * rounding<W>);
      for (const bool accumulate : {false, true}) {
        const auto gradient = [&](Shape s) { return accumulate ? Buffer<G>{s, 5} : Buffer<G>::unset(s); };
        Buffer<G> dx = gradient(shape), expected_dx = dx, dgain = gradient(row), expected_gain = dgain, dbias = gradient(row), expected_bias = dbias;
        kernels::layer_norm_inputs(x.view(), gain.view(), expected_stats.view(), dy.view(), dx.grad(accumulate));
        kernels::layer_norm_weights(x.view(), expected_stats.view(), dy.view(), dgain.grad(accumulate), dbias.grad(accumulate));
        reference::layer_norm_inputs(x.begin(), gain.begin(), expected_stats.begin(), dy.begin(), shape.rows, shape.columns, expected_dx.begin(),
                                     accumulate);
        reference::layer_norm_weights(x.begin(), expected_stats.begin(), dy.begin(), shape.rows, shape.columns, expected_gain.begin(), accumulate,
                                      expected_bias.begin(), accumulate);
        if (shape.columns > 1) CHECK(distance(dx, expected_dx) <= rounding<G>);  // of one column the gradient is rounding alone
        CHECK(distance(dgain, expected_gain) <= rounding<G>);
        CHECK(distance(dbias, expected_bias) <= rounding<G>);
      }
    });
}

TEST_CASE("gradients of layer norm's gain and bias have flags of their own") {
  const Shape shape{6, 40}, row{1, 40};
  Buffer<double> x{shape, 1}, dy{shape, 2}, stats{{6, 2}, 3}, dgain{row, 4}, dbias = Buffer<double>::unset(row), expected_gain = dgain,
                                                                             expected_bias = dbias;
  kernels::layer_norm_weights(x.view(), stats.view(), dy.view(), dgain.grad(true), dbias.grad(false));
  reference::layer_norm_weights(x.begin(), stats.begin(), dy.begin(), 6, 40, expected_gain.begin(), true, expected_bias.begin(), false);
  CHECK(distance(dgain, expected_gain) <= 1e-13);
  CHECK(distance(dbias, expected_bias) <= 1e-13);
}

TEST_CASE("layer norm's pullbacks are its derivatives") {
  const Shape shape{3, 19}, row{1, 19};
  Buffer<double> x{shape, 1}, gain{row, 2}, bias{row, 3}, dy{shape, 4}, y = Buffer<double>::unset(shape), stats = Buffer<double>::unset({3, 2});
  Buffer<double> dx = y, dgain = Buffer<double>::unset(row), dbias = dgain;
  const auto loss = [&] {
    kernels::layer_norm(x.view(), gain.view(), bias.view(), 1e-5, y.view(), stats.view());
    return weighted(y.data, dy.data);
  };
  loss();
  kernels::layer_norm_inputs(x.view(), gain.view(), stats.view(), dy.view(), dx.grad(false));
  kernels::layer_norm_weights(x.view(), stats.view(), dy.view(), dgain.grad(false), dbias.grad(false));
  CHECK(distance(dx.data, central_differences(x.data, loss, 1e-3)) < 1e-9);
  CHECK(distance(dgain.data, central_differences(gain.data, loss, 1e-3)) < 1e-9);
  CHECK(distance(dbias.data, central_differences(bias.data, loss, 1e-3)) < 1e-9);
}

TEST_CASE("gradients of layer norm's weights don't depend on threads") {
  Buffer<float> x{{700, 259}, 1}, dy{{700, 259}, 2}, stats{{700, 2}, 3};
  CHECK(same_on_any_threads([&] {
    Buffer<float> dgain = Buffer<float>::unset({1, 259}), dbias = dgain;
    kernels::layer_norm_weights(x.view(), stats.view(), dy.view(), dgain.grad(false), dbias.grad(false));
    dgain.data.insert(dgain.data.end(), dbias.data.begin(), dbias.data.end());
    return dgain.data;
  }));
}

TEST_CASE("layer norm refuses weights and statistics that don't fit its rows") {
  Buffer<float> x{{3, 4}, 1}, weights{{1, 4}, 2}, few{{1, 3}, 3}, stats{{3, 2}, 4};
  Buffer<double> wide{{3, 2}, 5};
  const auto number = [&](Buffer<float>& gain, View s) {
    try {
      kernels::layer_norm(x.view(), gain.view(), gain.view(), 1e-5, x.view(), s);
    } catch (const Error& error) {
      return error.number();
    }
    return 0;
  };
  CHECK(number(weights, stats.view()) == 0);
  CHECK(number(few, stats.view()) == 301);
  CHECK(number(weights, wide.view()) == 405);
}
