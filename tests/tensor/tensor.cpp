// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include <dsx/tensor/tensor.hpp>

#include <doctest/doctest.h>

using namespace dsx;

TEST_CASE("a tensor owns what its view shows") {
  Tensor<float> x{{2, 3}, {1, 2, 3, 4, 5, 6}};
  x.view().rows({1, 2}).at<float>(0, 2) = 9;
  CHECK(x(1, 2) == 9);
  const Tensor<float> copy = x;
  x(0, 0) = -1;
  CHECK(copy(0, 0) == 1);
  CHECK(Tensor<float>{Shape{2, 2}}(1, 1) == 0);
}

TEST_CASE("a tensor is made from any view, in its own element") {
  Tensor<float> x{{1, 2}, {1.005F, -2}};
  const Tensor<double> wide{x.view()};
  CHECK(wide(0, 0) == double(1.005F));
  const Tensor<bf16> narrow{x.view()};
  CHECK(float(narrow(0, 0)) == 1.0078125F);
  CHECK(narrow.shape() == Shape{1, 2});
}

TEST_CASE("elements that aren't as many as the shape says make no tensor") {
  CHECK_THROWS_WITH_AS((Tensor<float>{{2, 2}, {1, 2, 3}}), "dsx-E301: a tensor of 2 x 2 from 3 elements", Error);
  CHECK_THROWS_WITH_AS((Tensor<float>{View{nullptr, {2, 2}}}), "dsx-E301: a tensor from a view of 2 x 2 without data", Error);
}
