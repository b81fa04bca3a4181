// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
#include "comparison.hpp"

#include <dsx/kernels/matmul.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstring>

using namespace dsx;
using namespace dsx::test;

namespace {

struct Size {
  Extent m, n, k;
};
constexpr Size sizes[] = {{0, 5, 3},     {5, 0, 3},    {3, 5, 0},     {1, 1, 1},     {3, 5, 7},    {2, 1100, 70}, {3, 1025, 3},
                          {12, 32, 1},   {13, 33, 17}, {7, 130, 64},  {64, 70, 130}, {1, 300, 70}, {4, 257, 33},  {130, 96, 391},
                          {25, 31, 800}, {1, 63, 1},   {17, 200, 48}, {63, 1, 129},  {261, 49, 9}, {5, 145, 769}};

template <class T>
Buffer<T> operand(Extent rows, Extent columns, bool transposed, std::uint64_t seed) {
  return transposed ? Buffer<T>{{columns, rows}, seed} : Buffer<T>{{rows, columns}, seed};
}

int number_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.number();
  }
  return 0;
}

}  // namespace

TEST_CASE("products agree with the reference, transposed or not, overwriting or adding") {
  for (const Size s : sizes)
    for_gradients([&](auto zero, auto result_zero) {
      using T = decltype(zero);
      using U = decltype(result_zero);
      for (int variant = 0; variant < 8; ++variant) {
        const bool a_transposed = variant & 1, b_transposed = variant & 2, accumulate = variant & 4;
        auto a = operand<T>(s.m, s.k, a_transposed, 1), b = operand<T>(s.k, s.n, b_transposed, 2);
        Buffer<U> c = accumulate ? Buffer<U>{{s.m, s.n}, 3} : Buffer<U>::unset({s.m, s.n}), expected = c;
        kernels::matmul({a.view(), a_transposed}, {b.view(), b_transposed}, c.grad(accumulate));
        reference::matmul(a.begin(), a_transposed, b.begin(), b_transposed, s.m, s.n, s.k, expected.begin(), accumulate);
        CHECK(distance(c, expected) <= rounding<U>);
      }
    });
}

TEST_CASE("a bias and GELU follow a product") {
  for (const Size s : sizes)
    for (const Gelu form : {Gelu::tanh, Gelu::erf})
      for_gradients([&](auto zero, auto result_zero) {
        using T = decltype(zero);
        using U = decltype(result_zero);
        Buffer<T> a{{s.m, s.k}, 1}, b{{s.k, s.n}, 2}, bias{{1, s.n}, 3};
        Buffer<U> c = Buffer<U>::unset({s.m, s.n}), expected = c, activated = c;
        kernels::matmul({a.view()}, {b.view()}, c.grad(false), {.bias_N = bias.view(), .activated_MN = activated.view(), .form = form});
        reference::matmul(a.begin(), false, b.begin(), false, s.m, s.n, s.k, expected.begin(), false, bias.begin());
        std::vector<double> expected_gelu;
        for (const U e : c.data) expected_gelu.push_back(reference::gelu(e, form));
        CHECK(distance(c, expected) <= rounding<U>);
        CHECK(distance(activated.data, expected_gelu) <= rounding<U>);

        Buffer<U> in_place = Buffer<U>::unset({s.m, s.n});
        kernels::matmul({a.view()}, {b.view()}, in_place.grad(false), {.bias_N = bias.view(), .activated_MN = in_place.view(), .form = form});
        CHECK(distance(in_place, activated) <= rounding<U>);
      });
}

TEST_CASE("scratch of the size that is told suffices, and products don't depend on threads but for oneDNN's rounding") {
  for (const Size s : {Size{301, 133, 517}, Size{5, 600, 900}, Size{1, 700, 1100}, Size{1030, 3, 200}, Size{49, 1100, 40}})
    for_gradients([&](auto zero, auto result_zero) {
      using T = decltype(zero);
      using U = decltype(result_zero);
      for (const bool b_transposed : {false, true}) {
        auto a = operand<T>(s.m, s.k, false, 1), b = operand<T>(s.k, s.n, b_transposed, 2);
        const auto product = [&] {
          Buffer<U> c = Buffer<U>::unset({s.m, s.n});
          const Extent bytes = kernels::matmul_scratch({a.view()}, {b.view(), b_transposed}, c.view());
          std::vector<std::byte> scratch(bytes + 64, std::byte{0xFF});
          const View space{scratch.data(), {bytes, 1}, Element::u8, Place::cpu, nullptr};
          kernels::matmul({a.view()}, {b.view(), b_transposed}, c.grad(false), {}, space);
          bool untouched = true;
          for (Extent i = bytes; i < scratch.size(); ++i) untouched = untouched && scratch[i] == std::byte{0xFF};
          CHECK(untouched);
          return c;
        };
        const Buffer<U> two = product();
        CHECK(product().data == two.data);
        const bool eigen = kernels::matmul_library(element_of<T>) == kernels::MatmulLibrary::eigen;
        for (const int threads : {1, 3, 7}) {
          if (omp_set_num_threads) omp_set_num_threads(threads);
          CHECK(distance(product(), two) <= (eigen ? 0 : std::is_same_v<U, bf16> ? rounding<bf16> : 1e-6));
        }
        if (omp_set_num_threads) omp_set_num_threads(2);
      }
    });
}

TEST_CASE("the scratch of a product depends on shapes and elements alone") {
  View a{nullptr, {100, 70}, Element::f32, Place::cpu, nullptr}, b{nullptr, {70, 90}, Element::f32, Place::cpu, nullptr},
      c{nullptr, {100, 90}, Element::f32, Place::cpu, nullptr};
  Buffer<float> x{{100, 70}, 1}, y{{70, 90}, 2}, z{{100, 90}, 3};
  CHECK(kernels::matmul_scratch({a}, {b}, c) == kernels::matmul_scratch({x.view()}, {y.view()}, z.view()));
  CHECK(kernels::matmul_scratch({a}, {b}, c) > 0);
}

TEST_CASE("the scratch of a product suffices for a smaller one, of fewer rows or of shorter sums") {
  for_gradients([&](auto zero, auto result_zero) {
    using T = decltype(zero);
    using U = decltype(result_zero);
    Buffer<T> a{{700, 900}, 1}, b{{900, 50}, 2};
    Buffer<U> c = Buffer<U>::unset({700, 50});
    std::vector<std::byte> scratch(kernels::matmul_scratch({a.view()}, {b.view()}, c.view()));
    const View space{scratch.data(), {scratch.size(), 1}, Element::u8, Place::cpu, nullptr};
    for (const Extent rows : {1, 2, 256, 257, 512, 699})
      for (const Extent sums : {1, 127, 384, 385, 768, 769, 900}) {
        Buffer<T> left{{rows, sums}, 3}, right{{sums, 50}, 4};
        Buffer<U> expected = Buffer<U>::unset({rows, 50});
        kernels::matmul({left.view()}, {right.view()}, {c.view().rows({0, rows}), false}, {}, space);
        reference::matmul(left.begin(), false, right.begin(), false, rows, Extent(50), sums, expected.begin(), false);
        CHECK(distance(std::vector<U>(c.begin(), c.begin() + rows * 50), expected.data) <= rounding<U>);
      }
  });
}

TEST_CASE("groups of rows, empty ones among them, meet their own matrices") {
  const std::vector<Extent> begin{0, 0, 5, 6, 6, 40, 40};
  const Extent groups = 6, rows = 40, k = 33, n = 50;
  for_gradients([&](auto zero, auto result_zero) {
    using T = decltype(zero);
    using U = decltype(result_zero);
    for (int variant = 0; variant < 4; ++variant) {
      const bool transposed = variant & 1, accumulate = variant & 2;
      Buffer<T> a{{rows, k}, 1}, b{transposed ? Shape{groups * n, k} : Shape{groups * k, n}, 2};
      Buffer<U> c = accumulate ? Buffer<U>{{rows, n}, 3} : Buffer<U>::unset({rows, n}), expected = c;
      kernels::grouped_matmul({a.view()}, b.view(), transposed, begin, c.grad(accumulate));
      for (Extent g = 0; g < groups; ++g)
        reference::matmul(a.begin() + begin[g] * k, false, b.begin() + g * n * k, transposed, begin[g + 1] - begin[g], n, k,
                          expected.begin() + begin[g] * n, accumulate);
      CHECK(distance(c, expected) <= rounding<U>);

      Buffer<T> bias{{groups, n}, 6};
      Buffer<U> biased = Buffer<U>::unset({rows, n}), activated = biased, gelu = biased;
      expected = biased;
      kernels::grouped_matmul({a.view()}, b.view(), transposed, begin, biased.grad(false), {}, {bias.view(), activated.view(), Gelu::erf});
      for (Extent g = 0; g < groups; ++g)
        reference::matmul(a.begin() + begin[g] * k, false, b.begin() + g * n * k, transposed, begin[g + 1] - begin[g], n, k,
                          expected.begin() + begin[g] * n, false, bias.begin() + g * n);
      for (Extent i = 0; i < gelu.data.size(); ++i) gelu.data[i] = U(Wide<U>(reference::gelu(expected.data[i], Gelu::erf)));
      CHECK(distance(biased, expected) <= rounding<U>);
      CHECK(distance(activated, gelu) <= 2 * rounding<U>);

      Buffer<T> dc{{rows, n}, 4};
      Buffer<U> db = accumulate ? Buffer<U>{{groups * k, n}, 5} : Buffer<U>::unset({groups * k, n}), expected_db = db;
      kernels::grouped_matmul_weights(a.view(), dc.view(), begin, db.grad(accumulate));
      for (Extent g = 0; g < groups; ++g)
        reference::matmul(a.begin() + begin[g] * k, true, dc.begin() + begin[g] * n, false, k, n, begin[g + 1] - begin[g],
                          expected_db.begin() + g * n * k, accumulate);
      CHECK(distance(db, expected_db) <= rounding<U>);
    }
  });
}

TEST_CASE("products of groups are the same bits on any number of threads, however rows are spread") {
  constexpr Extent rows = 905, inner = 800, columns = 100;
  const std::vector<std::vector<Extent>> spreads{{0, 0, 3, 603, 604, 604, 839, 905}, {0, 905}, {0, 300, 301, 302, 303, 304, 905, 905}};
  for_gradients([&](auto zero, auto result_zero) {
    using T = decltype(zero);
    using U = decltype(result_zero);
    for (const auto& begin : spreads) {
      const Extent groups = begin.size() - 1;
      Buffer<T> a{{rows, inner}, 1}, b{{groups * inner, columns}, 2}, turned{{groups * columns, inner}, 3}, dc{{rows, columns}, 4};
      Buffer<U> bias{{groups, columns}, 5};
      const auto same = [](const std::vector<U>& x, const std::vector<U>& y) { return std::memcmp(x.data(), y.data(), x.size() * sizeof(U)) == 0; };
      for (const bool accumulate : {false, true}) {
        const auto results = [&](int threads) {
          if (omp_set_num_threads) omp_set_num_threads(threads);
          const auto fresh = [&](Shape s) { return accumulate ? Buffer<U>{s, 6} : Buffer<U>::unset(s); };
          std::array all{fresh({rows, columns}), fresh({rows, columns}), fresh({groups * inner, columns}), Buffer<U>::unset({rows, columns})};
          kernels::grouped_matmul({a.view()}, b.view(), false, begin, all[0].grad(accumulate), {}, {bias.view(), all[3].view(), Gelu::tanh});
          kernels::grouped_matmul({a.view()}, turned.view(), true, begin, all[1].grad(accumulate));
          kernels::grouped_matmul_weights(a.view(), dc.view(), begin, all[2].grad(accumulate));
          return all;
        };
        const auto alone = results(1);
        for (const int threads : {2, 3}) {
          const auto together = results(threads);
          for (Extent i = 0; i < alone.size(); ++i) CHECK(same(together[i].data, alone[i].data));
        }
      }
    }
  });
  if (omp_set_num_threads) omp_set_num_threads(2);
}

TEST_CASE("the pullbacks of a product are products") {
  const Extent m = 5, n = 9, k = 13;
  Buffer<double> a{{m, k}, 1}, b{{k, n}, 2}, dc{{m, n}, 3}, c = Buffer<double>::unset({m, n}), da = Buffer<double>::unset({m, k}),
                                                            db = Buffer<double>::unset({k, n});
  kernels::matmul({dc.view()}, {b.view(), true}, da.grad(false));
  kernels::matmul({a.view(), true}, {dc.view()}, db.grad(false));
  const auto loss = [&] { return kernels::matmul({a.view()}, {b.view()}, c.grad(false)), weighted(c.data, dc.data); };
  CHECK(distance(da.data, central_differences(a.data, loss, 1e-2)) < 1e-9);
  CHECK(distance(db.data, central_differences(b.data, loss, 1e-2)) < 1e-9);
}

TEST_CASE("products refuse shapes, elements and scratch that don't fit") {
  Buffer<float> a{{3, 4}, 1}, b{{4, 5}, 2}, c{{3, 5}, 3}, wrong{{5, 4}, 4};
  Buffer<double> wide{{3, 5}, 5};
  Buffer<bf16> narrow{{3, 5}, 6};
  CHECK(number_of([&] { kernels::matmul({a.view()}, {wrong.view()}, c.grad(false)); }) == 301);
  CHECK(number_of([&] { kernels::matmul({a.view()}, {b.view()}, wrong.grad(false)); }) == 301);
  CHECK(number_of([&] { kernels::matmul({a.view()}, {b.view()}, c.grad(false), {.bias_N = a.view()}); }) == 301);
  CHECK(number_of([&] { kernels::matmul({a.view()}, {b.view()}, narrow.grad(false)); }) == 405);
  CHECK(number_of([&] { kernels::matmul({a.view()}, {b.view()}, wide.grad(false)); }) == 405);
  CHECK(number_of([&] { kernels::matmul({wide.view()}, {b.view()}, c.grad(false)); }) == 301);
  std::byte little[8];
  CHECK(number_of([&] { kernels::matmul({a.view()}, {b.view()}, c.grad(false), {}, {little, {8, 1}, Element::u8, Place::cpu, nullptr}); }) == 401);
  const std::vector<Extent> falling{0, 2, 1, 3};
  Buffer<float> stack{{12, 5}, 7};
  CHECK(number_of([&] { kernels::grouped_matmul({a.view()}, stack.view(), false, falling, c.grad(false)); }) == 301);
  CHECK(number_of([&] {
          kernels::grouped_matmul({a.view()}, stack.view(), false, std::vector<Extent>{0, 1, 2, 3}, c.grad(false), {}, {.bias_N = b.view()});
        }) == 301);
  CHECK(number_of([&] { kernels::grouped_matmul_weights(a.view(), c.view(), falling, stack.grad(false)); }) == 301);
}
