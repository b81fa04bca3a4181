// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient gold
#include "comparison.hpp"
#include "support/stored.hpp"

#include <dsx/core/error.hpp>
#include <dsx/kernels/rope.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

using Scaling = Rope::Scaling;
constexpr Rope llama3{.base = 500000, .scaling = Scaling::llama3, .factor = 8, .trained = 8192, .slow = 1, .fast = 4};
const Heads odd_heads[] = {{1, 1, 2}, {3, 1, 6}, {2, 2, 34}, {4, 2, 64}, {1, 1, 512}};

std::vector<int> positions_of(Extent rows) {
  std::vector<int> positions(rows);
  for (Extent r = 0; r < rows; ++r) positions[r] = r % 5 == 4 ? 0 : int(r * r * 7);
  return positions;
}

}  // namespace

TEST_CASE("rotary positions and their pullback agree with the reference") {
  for (const Heads& heads : odd_heads)
    for (const Extent rows : {0UL, 1UL, 9UL, 70UL})
      for_gradients([&](auto zero, auto grad_zero) {
        using T = decltype(zero);
        using G = decltype(grad_zero);
        const Shape shape{rows, heads.columns()};
        const std::vector<int> positions = positions_of(rows);
        Buffer<T> x{shape, 1}, dy{shape, 2}, y = Buffer<T>::unset(shape), expected = y;
        kernels::rope(x.view(), heads, positions, llama3, y.view());
        reference::rope(x.begin(), heads, positions, llama3, 1, expected.begin(), false);
        CHECK(distance(y, expected) <= rounding<T>);
        for (const bool accumulate : {false, true}) {
          Buffer<G> dx = accumulate ? Buffer<G>{shape, 3} : Buffer<G>::unset(shape), expected_dx = dx;
          kernels::rope_pullback(dy.view(), heads, positions, llama3, dx.grad(accumulate));
          reference::rope(dy.begin(), heads, positions, llama3, -1, expected_dx.begin(), accumulate);
          CHECK(distance(dx, expected_dx) <= rounding<G>);
        }
      });
}

TEST_CASE("the pullback of rotary positions is their derivative") {
  const Heads heads{2, 1, 6};
  const std::vector<int> positions{0, 3, 250};
  const Rope stretched{.scaling = Scaling::yarn, .factor = 4, .trained = 64, .amplitude = 1.25};
  const Shape shape{3, heads.columns()};
  Buffer<double> x{shape, 1, 2}, dy{shape, 2}, y = Buffer<double>::unset(shape), dx = y;
  kernels::rope_pullback(dy.view(), heads, positions, stretched, dx.grad(false));
  const auto loss = [&] {
    kernels::rope(x.view(), heads, positions, stretched, y.view());
    return weighted(y.data, dy.data);
  };
  CHECK(distance(dx.data, central_differences(x.data, loss, 1e-3)) < 1e-9);
}

TEST_CASE("scores of turned queries and keys depend on how far apart they are, not on where") {
  const Heads heads{1, 1, 16};
  Buffer<double> x{{2, 48}, 1}, y = x;
  const auto score = [&](int query, int key) {
    const std::vector<int> positions{query, key};
    kernels::rope(x.view(), heads, positions, {}, y.view());
    double sum = 0;
    for (Extent d = 0; d < 16; ++d) sum += y.data[d] * y.data[48 + 16 + d];
    return sum;
  };
  CHECK(score(1007, 1000) == doctest::Approx(score(7, 0)).epsilon(1e-12));
  CHECK(std::abs(score(8, 0) - score(7, 0)) > 1e-3);
}

TEST_CASE("frequencies, cosines and sines of every scaling equal Hugging Face's") {
  const std::pair<std::string, Rope> cases[] = {
      {"default", {}},
      {"theta_500000", {.base = 500000}},
      {"linear", {.scaling = Scaling::linear, .factor = 4}},
      {"dynamic", {.scaling = Scaling::dynamic, .factor = 2, .trained = 512, .length = 2048}},
      {"yarn", {.scaling = Scaling::yarn, .factor = 4, .trained = 512, .amplitude = yarn_amplitude(4)}},
      {"yarn_deepseek", {.scaling = Scaling::yarn, .factor = 40, .trained = 512, .amplitude = yarn_amplitude(40) / yarn_amplitude(40)}},
      {"llama3", llama3}};
  const SafetensorsFile expected{golden("rope/expected.safetensors")};
  const std::vector<int> positions = integers(expected, "positions");
  const Heads heads{1, 1, 64};
  for (const auto& [name, rope] : cases) {
    INFO(name);
    const std::vector<double> theirs = numbers(expected, name + ".inverse_frequency"), cosines = numbers(expected, name + ".cos"),
                              sines = numbers(expected, name + ".sin");
    std::vector<double> mine(32);
    rope_frequencies(rope, 64, mine.data());
    for (Extent d = 0; d < 32; ++d) CHECK(std::abs(mine[d] - theirs[d]) < 1e-6 * theirs[d]);
    Buffer<double> x{{positions.size(), 192}, std::vector<double>(positions.size() * 192)}, y = x;
    for (Extent r = 0; r < positions.size(); ++r) std::fill_n(x.begin() + r * 192, 32, 1);  // a query of ones and zeros becomes cosines and sines
    kernels::rope(x.view(), heads, positions, rope, y.view());
    // Theirs are in double, of frequencies that were rounded to float unless nothing was scaled.
    const double rounding = rope.scaling == Scaling::none ? 0 : 3e-7;
    for (Extent r = 0; r < positions.size(); ++r)
      for (Extent d = 0; d < 32; ++d) {
        const double bound = 1e-11 + rounding * theirs[d] * double(positions[r]) + rounding;
        CHECK(std::abs(y.data[r * 192 + d] - cosines[r * 32 + d]) < bound);
        CHECK(std::abs(y.data[r * 192 + 32 + d] - sines[r * 32 + d]) < bound);
      }
  }
}

TEST_CASE("a dynamic base stays as it was up to the trained positions") {
  std::vector<double> plain(32), scaled(32);
  rope_frequencies({}, 64, plain.data());
  rope_frequencies({.scaling = Scaling::dynamic, .factor = 2, .trained = 512, .length = 512}, 64, scaled.data());
  CHECK(plain == scaled);
}

TEST_CASE("rotary positions refuse heads of odd channels and rows without positions") {
  Buffer<float> x{{2, 12}, 1}, y = x, nine{{2, 9}, 1};
  Buffer<double> other{{2, 12}, 1};
  const std::vector<int> two{0, 1}, three{0, 1, 2};
  const auto number = [&](View from, Heads heads, std::span<const int> positions, View to) {
    try {
      kernels::rope(from, heads, positions, {}, to);
    } catch (const Error& error) {
      return error.number();
    }
    return 0;
  };
  CHECK(number(x.view(), {1, 1, 4}, two, y.view()) == 0);
  CHECK(number(nine.view(), {1, 1, 3}, two, nine.view()) == 301);
  CHECK(number(x.view(), {2, 1, 4}, two, y.view()) == 301);
  CHECK(number(x.view(), {1, 1, 4}, three, y.view()) == 301);
  CHECK(number(x.view(), {1, 1, 4}, two, other.view()) == 405);
}
