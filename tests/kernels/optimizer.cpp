// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include "comparison.hpp"

#include <dsx/kernels/optimizer.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

constexpr Extent sizes[] = {0, 1, 7, 33, 1000, 40001};

/// f(W{}, G{}, O{}) for master, gradient and cast result.
template <class F>
void for_triples(const F& f) {
  f(float{}, float{}, float{}), f(float{}, bf16{}, bf16{}), f(float{}, float{}, bf16{}), f(float{}, bf16{}, float{});
  f(double{}, double{}, double{}), f(double{}, float{}, float{}), f(double{}, bf16{}, bf16{});
}

template <class W, class O>
std::vector<O> cast(const std::vector<W>& master) {
  std::vector<O> result;
  for (const W w : master) result.push_back(O(w));
  return result;
}

}  // namespace

TEST_CASE("AdamW agrees with the reference over some steps") {
  for (const Extent n : sizes)
    for_triples([&](auto w_zero, auto g_zero, auto o_zero) {
      using W = decltype(w_zero);
      using G = decltype(g_zero);
      using O = decltype(o_zero);
      Buffer<W> master{{n, 1}, 1}, first{{n, 1}, std::vector<W>(n)}, second = first, expected = master, expected_first = first,
                                                                     expected_second = second;
      Buffer<O> weights = Buffer<O>::unset({n, 1});
      for (int t = 1; t <= 4; ++t) {
        Buffer<G> gradient{{n, 1}, std::uint64_t(10 + t)};
        const kernels::AdamWStep step{.rate = 0.01,
                                      .beta_1 = 0.9,
                                      .beta_2 = 0.95,
                                      .decay = 0.1,
                                      .scale = 0.7,
                                      .correction_1 = 1 - std::pow(0.9, t),
                                      .correction_2 = 1 - std::pow(0.95, t)};
        kernels::adamw(step, master.view(), gradient.view(), first.view(), second.view(), weights.view());
        for (Extent i = 0; i < n; ++i)
          reference::adamw(step, expected.data[i], double(gradient.data[i]), expected_first.data[i], expected_second.data[i]);
      }
      CHECK(distance(master, expected) <= rounding<W>);
      CHECK(distance(first, expected_first) <= rounding<W>);
      CHECK(distance(second, expected_second) <= rounding<W>);
      CHECK(distance(weights.data, cast<W, O>(master.data)) == 0);
    });
}

TEST_CASE("AdamW's step under a frozen second moment, and a blend of a gradient into a momentum, agree with the reference") {
  for (const Extent n : sizes)
    for_triples([&](auto w_zero, auto g_zero, auto o_zero) {
      using W = decltype(w_zero);
      using G = decltype(g_zero);
      using O = decltype(o_zero);
      Buffer<W> master{{n, 1}, 1}, first{{n, 1}, 2}, second{{n, 1}, 3}, expected = master, expected_first = first;
      for (Extent i = 0; i < n; ++i) second.data[i] = i % 3 == 1 ? W(0) : second.data[i] * second.data[i];
      const auto frozen = second.data;
      Buffer<G> gradient{{n, 1}, 4};
      Buffer<O> weights = Buffer<O>::unset({n, 1});
      const kernels::AdamWStep step{.rate = 0.01, .epsilon = 0.1, .decay = 0.1};
      kernels::blend(0.225, 0.07, gradient.view(), first.view());
      kernels::adamw_frozen(step, master.view(), first.view(), second.view(), weights.view());
      for (Extent i = 0; i < n; ++i) {
        reference::blend(0.225, 0.07, double(gradient.data[i]), expected_first.data[i]);
        reference::adamw_frozen(step, expected.data[i], expected_first.data[i], second.data[i]);
        if (frozen[i] == W(0)) CHECK(first.data[i] == W(0));
      }
      CHECK(distance(master, expected) <= rounding<W>);
      CHECK(distance(first, expected_first) <= rounding<W>);
      CHECK(second.data == frozen);
      CHECK(distance(weights.data, cast<W, O>(master.data)) == 0);
    });
}

TEST_CASE("SGD agrees with the reference, with momentum and without") {
  for (const Extent n : sizes)
    for (const bool momentum : {false, true})
      for_triples([&](auto w_zero, auto g_zero, auto o_zero) {
        using W = decltype(w_zero);
        using G = decltype(g_zero);
        using O = decltype(o_zero);
        Buffer<W> master{{n, 1}, 1}, velocity{{n, 1}, std::vector<W>(n)}, expected = master, expected_velocity = velocity;
        Buffer<O> weights = Buffer<O>::unset({n, 1});
        for (int t = 1; t <= 3; ++t) {
          Buffer<G> gradient{{n, 1}, std::uint64_t(10 + t)};
          const kernels::SgdStep step{.rate = 0.1, .momentum = momentum ? 0.9 : 0, .decay = 0.01, .scale = 0.5};
          kernels::sgd(step, master.view(), gradient.view(), momentum ? velocity.view() : View{}, weights.view());
          for (Extent i = 0; i < n; ++i)
            reference::sgd(step, expected.data[i], double(gradient.data[i]), momentum ? &expected_velocity.data[i] : nullptr);
        }
        CHECK(distance(master, expected) <= rounding<W>);
        CHECK(distance(velocity, expected_velocity) <= rounding<W>);
        CHECK(distance(weights.data, cast<W, O>(master.data)) == 0);
      });
}

TEST_CASE("Muon's momentum and a step along a direction agree with the reference") {
  for (const Extent n : sizes)
    for_triples([&](auto w_zero, auto g_zero, auto o_zero) {
      using W = decltype(w_zero);
      using G = decltype(g_zero);
      using O = decltype(o_zero);
      Buffer<W> state{{n, 1}, 1}, expected_state = state, master{{n, 1}, 2}, expected_master = master;
      Buffer<G> gradient{{n, 1}, 3};
      Buffer<O> out = Buffer<O>::unset({n, 1}), weights = out;
      std::vector<double> expected_out;
      kernels::muon_momentum(0.95, 0.5, gradient.view(), state.view(), out.view());
      kernels::step_along(0.02, 0.003, master.view(), gradient.view(), weights.view());
      for (Extent i = 0; i < n; ++i) {
        expected_out.push_back(reference::muon_momentum(0.95, 0.5, double(gradient.data[i]), expected_state.data[i]));
        reference::step_along(0.02, 0.003, expected_master.data[i], double(gradient.data[i]));
      }
      CHECK(distance(state, expected_state) <= rounding<W>);
      CHECK(distance(out.data, expected_out) <= rounding<O>);
      CHECK(distance(master, expected_master) <= rounding<W>);
      CHECK(distance(weights.data, cast<W, O>(master.data)) == 0);
    });
}

TEST_CASE("weights that are the master itself or absent are written once") {
  Buffer<float> master{{100, 1}, 1}, first{{100, 1}, std::vector<float>(100)}, second = first, gradient{{100, 1}, 2};
  auto same = master, same_first = first, same_second = second;
  const kernels::AdamWStep step{.rate = 0.1, .correction_1 = 0.1, .correction_2 = 0.001};
  kernels::adamw(step, master.view(), gradient.view(), first.view(), second.view(), {});
  kernels::adamw(step, same.view(), gradient.view(), same_first.view(), same_second.view(), same.view());
  CHECK(master.data == same.data);
}

TEST_CASE("the squared norm is exact to double and doesn't depend on threads") {
  for (const Extent n : sizes)
    for_elements([&](auto zero) {
      using T = decltype(zero);
      Buffer<T> x{{n, 1}, 1};
      double expected = 0;
      for (const T e : x.data) expected += double(e) * double(e);
      CHECK(std::abs(kernels::squared_norm(x.view()) - expected) <= 1e-13 * std::max(1.0, expected));
    });
  Buffer<float> x{{123457, 1}, 2};
  CHECK(same_on_any_threads([&] { return kernels::squared_norm(x.view()); }));
}

TEST_CASE("squares are added up without rounding, on any number of threads") {
  for_elements([&](auto zero) {
    using T = decltype(zero);
    for (const Extent n : sizes) {
      Buffer<T> x{{n, 1}, 1};
      if (n > 30) x.data[3] = T(1e-30F), x.data[4] = T(1e18F), x.data[5] = T(0.0F), x.data[6] = T(-1e-20F);
      if constexpr (std::same_as<T, double>)
        if (n > 30) x.data[7] = 1e-160, x.data[8] = 1e154, x.data[9] = 1e-200;  // the square of the first is denormal, that of the last 0
      ExactSum one, all;
      for (const T e : x.data) one.add(double(e) * double(e));
      kernels::add_squares(x.view(), all);
      CHECK(all.value() == one.value());
      if (n == 0) continue;
      x.data[n / 2] = T(-std::numeric_limits<float>::infinity());
      kernels::add_squares(x.view(), all);
      CHECK(all.value() == std::numeric_limits<double>::infinity());
      x.data[n - 1] = T(-std::numeric_limits<float>::quiet_NaN());
      kernels::add_squares(x.view(), all);
      CHECK(std::isnan(all.value()));
    }
  });
  Buffer<float> x{{123457, 1}, 2};
  CHECK(same_on_any_threads([&] {
    ExactSum sum;
    kernels::add_squares(x.view(), sum);
    return sum.value();
  }));
}

TEST_CASE("one element that isn't finite is found wherever it lies") {
  for_elements([&](auto zero) {
    using T = decltype(zero);
    for (const Extent n : {1, 40, 40001}) {
      Buffer<T> x{{n, 1}, 1};
      CHECK(kernels::all_finite(x.view()));
      for (const Extent at : {Extent(0), n / 2, n - 1})
        for (const float strange :
             {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
          const T kept = x.data[at];
          x.data[at] = T(strange);
          CHECK_FALSE(kernels::all_finite(x.view()));
          x.data[at] = kept;
        }
    }
  });
}

TEST_CASE("optimizers refuse states of other sizes and elements") {
  Buffer<float> a{{5, 1}, 1}, few{{4, 1}, 2};
  Buffer<double> wide{{5, 1}, 3};
  CHECK_THROWS_WITH_AS(kernels::adamw({}, a.view(), few.view(), a.view(), a.view(), {}), doctest::Contains("dsx-E301"), Error);
  CHECK_THROWS_WITH_AS(kernels::adamw({}, a.view(), a.view(), wide.view(), a.view(), {}), doctest::Contains("dsx-E405"), Error);
  CHECK_THROWS_WITH_AS(kernels::sgd({}, a.view(), wide.view(), {}, {}), doctest::Contains("dsx-E405"), Error);
}
