// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
#include "comparison.hpp"

#include <dsx/kernels/embedding.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

std::vector<int> some_ids(Extent rows, Extent entries) {
  std::vector<int> ids;
  for (Extent r = 0; r < rows; ++r) ids.push_back(r % 5 == 4 ? -1 : int(philox({std::uint32_t(r), 0, 0, 0}, {1, 2})[0] % (entries / 2 + 1)));
  return ids;
}

}  // namespace

TEST_CASE("lookups and their pullback agree with the reference, on parts of a table too") {
  for (const Shape shape : odd_shapes)
    for (const Range mine : {Range{0, 40}, Range{3, 9}, Range{30, 30}})
      for_gradients([&](auto zero, auto grad_zero) {
        using T = decltype(zero);
        using G = decltype(grad_zero);
        const auto ids = some_ids(shape.rows, 40);
        for (const bool accumulate : {false, true}) {
          Buffer<T> table{{mine.size(), shape.columns}, 1}, dy{shape, 2};
          const auto gradient = [&](Shape s) { return accumulate ? Buffer<G>{s, 3} : Buffer<G>::unset(s); };
          Buffer<G> y = gradient(shape), expected = y, dtable = gradient(table.shape), expected_table = dtable;
          kernels::lookup(ids, table.view(), mine, y.grad(accumulate));
          reference::lookup(ids, table.begin(), mine, shape.columns, expected.begin(), accumulate);
          CHECK(distance(y, expected) <= (accumulate ? rounding<G> : 0));
          kernels::lookup_pullback(ids, dy.view(), mine, dtable.grad(accumulate));
          reference::lookup_pullback(ids, dy.begin(), mine, shape.columns, expected_table.begin(), accumulate);
          CHECK(distance(dtable, expected_table) <= rounding<G>);
        }
      });
}

TEST_CASE("the pullback of a lookup is its derivative and doesn't depend on threads") {
  const std::vector<int> ids{2, 0, 2, 5, 2, -1};
  Buffer<double> table{{6, 7}, 1}, dy{{6, 7}, 2}, y = Buffer<double>::unset({6, 7}), dtable = y;
  kernels::lookup_pullback(ids, dy.view(), {0, 6}, dtable.grad(false));
  const auto loss = [&] { return kernels::lookup(ids, table.view(), {0, 6}, y.grad(false)), weighted(y.data, dy.data); };
  CHECK(distance(dtable.data, central_differences(table.data, loss)) < 1e-9);

  const auto many = some_ids(2000, 30);
  Buffer<float> wide_dy{{2000, 100}, 3};
  CHECK(same_on_any_threads([&] {
    Buffer<float> sums = Buffer<float>::unset({30, 100});
    kernels::lookup_pullback(many, wide_dy.view(), {0, 30}, sums.grad(false));
    return sums.data;
  }));
}

TEST_CASE("a lookup refuses a table that isn't as long as its range") {
  const std::vector<int> ids{0, 1};
  Buffer<float> table{{6, 7}, 1}, y{{2, 7}, 2};
  CHECK_THROWS_WITH_AS(kernels::lookup(ids, table.view(), {0, 5}, y.grad(false)), doctest::Contains("dsx-E301"), Error);
  CHECK_THROWS_WITH_AS(kernels::lookup_pullback(ids, table.view(), {0, 6}, table.grad(false)), doctest::Contains("dsx-E301"), Error);
}
