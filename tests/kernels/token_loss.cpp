// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
#include "comparison.hpp"

#include <dsx/kernels/token_loss.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

/// Columns of a matrix as a buffer of its own, as a product with some rows of the table makes it.
template <class W>
Buffer<W> columns(const Buffer<W>& logits, Range chunk) {
  Buffer<W> part = Buffer<W>::unset({logits.shape.rows, chunk.size()});
  for (Extent r = 0; r < logits.shape.rows; ++r)
    for (Extent c = 0; c < chunk.size(); ++c) part.data[r * chunk.size() + c] = logits.data[r * logits.shape.columns + chunk.begin + c];
  return part;
}

template <class W>
struct Visit {
  Buffer<W> state;
  Buffer<double> loss;
  std::vector<W> dlogits;
};

/// Loss and gradient over chunks of `chunk` entries.
template <class W>
Visit<W> visit(const Buffer<W>& logits, const std::vector<int>& targets, Extent chunk, double weight) {
  const Extent rows = logits.shape.rows, vocabulary = logits.shape.columns;
  Visit<W> v{Buffer<W>::unset({rows, 3}), Buffer<double>::unset({1, 1}), std::vector<W>(logits.shape.size(), W(NAN))};
  for (Extent begin = 0; begin < vocabulary; begin += chunk) {
    const Range range{begin, std::min(vocabulary, begin + chunk)};
    Buffer<W> part = columns(logits, range);
    kernels::softmax_chunk(part.view(), targets, range, v.state.view(), begin == 0);
  }
  kernels::token_loss(v.state.view(), targets, v.loss.view());
  for (Extent begin = 0; begin < vocabulary; begin += chunk) {
    const Range range{begin, std::min(vocabulary, begin + chunk)};
    Buffer<W> part = columns(logits, range);
    kernels::softmax_chunk_pullback(part.view(), targets, range, v.state.view(), weight);
    for (Extent r = 0; r < rows; ++r)
      for (Extent c = 0; c < range.size(); ++c) v.dlogits[r * vocabulary + begin + c] = part.data[r * range.size() + c];
  }
  return v;
}

std::vector<int> some_targets(Extent rows, Extent vocabulary) {
  std::vector<int> targets;
  for (Extent r = 0; r < rows; ++r) targets.push_back(r % 4 == 3 ? -100 : int(r * 7919 % vocabulary));
  return targets;
}

}  // namespace

TEST_CASE("losses and gradients over chunks agree with whole rows") {
  for (const Shape shape : odd_shapes)
    for (const Extent chunk : {1000, 33, 7}) {
      const auto check = [&](auto zero) {
        using W = decltype(zero);
        Buffer<W> logits{shape, 1, 10};
        const auto targets = some_targets(shape.rows, shape.columns);
        const auto v = visit(logits, targets, chunk, 0.25);
        std::vector<double> expected(shape.size());
        reference::token_loss_pullback(logits.begin(), targets, shape.columns, 0.25, expected.data());
        const double loss = reference::token_loss(logits.begin(), targets, shape.columns);
        CHECK(std::abs(double(v.loss.data[0]) - loss) <= rounding<W> * std::max(1.0, loss));
        if (shape.columns > 1) CHECK(distance(v.dlogits, expected) <= rounding<W>);
      };
      check(float{}), check(double{});
    }
}

TEST_CASE("the gradient of the token loss is its derivative") {
  Buffer<double> logits{{5, 23}, 1, 3};
  const auto targets = some_targets(5, 23);
  const auto gradient = visit(logits, targets, 8, 1).dlogits;
  const auto slopes = central_differences(logits.data, [&] { return visit(logits, targets, 8, 1).loss.data[0]; }, 1e-3);
  CHECK(distance(gradient, slopes) < 1e-9);
}

TEST_CASE("states of two ranks add up after rescaling to one largest logit") {
  Buffer<double> logits{{9, 60}, 1, 10};
  const auto targets = some_targets(9, 60);
  Buffer<double> left = Buffer<double>::unset({9, 3}), right = left, tops = Buffer<double>::unset({9, 1}), both = left,
                 loss = Buffer<double>::unset({1, 1});
  Buffer<double> first = columns(logits, {0, 25}), second = columns(logits, {25, 60});
  kernels::softmax_chunk(first.view(), targets, {0, 25}, left.view(), true);
  kernels::softmax_chunk(second.view(), targets, {25, 60}, right.view(), true);
  for (Extent r = 0; r < 9; ++r) tops.data[r] = std::max(left.data[3 * r], right.data[3 * r]);
  kernels::softmax_rescale(left.view(), tops.view());
  kernels::softmax_rescale(right.view(), tops.view());
  for (Extent r = 0; r < 9; ++r) {
    both.data[3 * r] = tops.data[r];
    for (Extent i : {1, 2}) both.data[3 * r + i] = left.data[3 * r + i] + right.data[3 * r + i];
  }
  kernels::token_loss(both.view(), targets, loss.view());
  CHECK(std::abs(loss.data[0] - reference::token_loss(logits.begin(), targets, 60)) < 1e-11);
}

TEST_CASE("logits far apart overflow nothing") {
  Buffer<float> logits{{2, 5}, {1e4F, -1e4F, 0, 1, 2, -3e38F, 3e38F, 0, 0, 0}};
  const std::vector<int> targets{0, 1};
  const auto v = visit(logits, targets, 2, 1);
  CHECK(v.loss.data[0] == 0);
  CHECK(distance(v.dlogits, std::vector<float>(10)) == 0);
}

TEST_CASE("the token loss refuses states, chunks and elements that don't fit") {
  Buffer<float> logits{{3, 8}, 1}, state{{3, 3}, 2}, few{{2, 3}, 3}, tops{{1, 1}, 4};
  Buffer<bf16> narrow{{3, 8}, 5};
  Buffer<bf16> narrow_state{{3, 3}, 5};
  const std::vector<int> targets{0, 1, 2};
  CHECK_THROWS_WITH_AS(kernels::softmax_chunk(logits.view(), targets, {0, 8}, few.view(), true), doctest::Contains("dsx-E301"), Error);
  CHECK_THROWS_WITH_AS(kernels::softmax_chunk(logits.view(), targets, {0, 7}, state.view(), true), doctest::Contains("dsx-E301"), Error);
  CHECK_THROWS_WITH_AS(kernels::softmax_chunk_pullback(logits.view(), targets, {0, 7}, state.view(), 1), doctest::Contains("dsx-E301"), Error);
  CHECK_THROWS_WITH_AS(kernels::softmax_chunk(narrow.view(), targets, {0, 8}, narrow_state.view(), true), doctest::Contains("dsx-E405"), Error);
  CHECK_THROWS_WITH_AS(kernels::token_loss(state.view(), targets, logits.view()), doctest::Contains("dsx-E301"), Error);
  CHECK_THROWS_WITH_AS(kernels::token_loss(state.view(), targets, tops.view()), doctest::Contains("dsx-E301: kernels::token_loss writes one f64"),
                       Error);
  CHECK_THROWS_WITH_AS(kernels::softmax_rescale(state.view(), tops.view()), doctest::Contains("dsx-E301"), Error);
}
