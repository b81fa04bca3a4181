// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A sum without rounding: any order and any cut of its terms give the same number, the nearest one.
#include <dsx/core/exact_sum.hpp>
#include <dsx/core/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

using namespace dsx;

namespace {

double sum_of(const std::vector<double>& terms) {
  ExactSum sum;
  for (const double x : terms) sum.add(x);
  return sum.value();
}
/// Doubles of every exponent between the two.
std::vector<double> terms_of(std::size_t count, int least, int most, std::uint64_t seed) {
  std::vector<double> all(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto draw = [&](std::uint32_t n) { return double(uniform({.seed = seed}, i, n)); };
    const double fraction = 1 + draw(0) + draw(1) * 0x1p-24 + draw(2) * 0x1p-48;
    all[i] = std::ldexp(draw(3) < 0.5 ? -fraction : fraction, least + int(draw(4) * double(most - least)));
  }
  return all;
}

}  // namespace

TEST_CASE("one double comes back as it was, from the smallest to the largest") {
  constexpr double smallest = std::numeric_limits<double>::denorm_min(), largest = std::numeric_limits<double>::max();
  for (const double x : {0.0, smallest, 3 * smallest, std::numeric_limits<double>::min(), 0.1, 1.0, -1.0, 1e300, largest, -largest})
    CHECK(sum_of({x}) == x);
  for (const double x : terms_of(2'000, -1074, 1022, 1)) CHECK(sum_of({x}) == x);
}

TEST_CASE("what cancels leaves exactly the rest") {
  CHECK(sum_of({1e300, 0.1, -1e300}) == 0.1);
  CHECK(sum_of({1, 1e-300, -1}) == 1e-300);
  CHECK(sum_of({-5, 3, 2}) == 0);
  CHECK(sum_of({-0x1p-1074, 0x1p1023, -0x1p1023}) == -0x1p-1074);
  std::vector<double> terms = terms_of(1'000, -600, 600, 2);
  for (std::size_t i = 0; i < 1'000; ++i) terms.push_back(-terms[(i * 7) % 1'000]);
  CHECK(sum_of(terms) == 0);
}

TEST_CASE("a sum is rounded once, to the nearest double and of two to the even one") {
  const double ulp = 0x1p-52;
  CHECK(sum_of({1, ulp / 2}) == 1);                   // half way: 1 is even
  CHECK(sum_of({1 + ulp, ulp / 2}) == 1 + 2 * ulp);   // half way: up to the even one
  CHECK(sum_of({1, ulp / 2, 0x1p-1074}) == 1 + ulp);  // a trace above half way
  CHECK(sum_of({-1, -ulp / 2, -0x1p-1074}) == -1 - ulp);
  CHECK(sum_of({1, ulp / 2, -0x1p-1074}) == 1);
  std::vector<double> tenths(1'000'000, 0.1);  // 1e6 times what 0.1 is, which lies 5.5e-18 above a tenth
  CHECK(sum_of(tenths) == 100'000);
  CHECK(std::accumulate(tenths.begin(), tenths.end(), 0.0) != 100'000);
}

TEST_CASE("no order and no cut into parts changes a bit of a sum, summed over ranks as numbers too") {
  std::vector<double> terms = terms_of(4'000, -80, 40, 3);
  const double whole = sum_of(terms);
  CHECK(std::accumulate(terms.begin(), terms.end(), 0.0) != whole);  // the terms are such that order matters
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    for (std::size_t i = terms.size(); i > 1; --i) std::swap(terms[i - 1], terms[std::size_t(uniform({.seed = seed}, i, 0) * float(i))]);
    CHECK(sum_of(terms) == whole);
    const std::size_t parts = 1 + seed % 7;
    ExactSum merged;
    std::array<double, ExactSum::numbers> over_ranks{};
    for (std::size_t p = 0; p < parts; ++p) {
      ExactSum part;
      for (std::size_t i = p; i < terms.size(); i += parts) part.add(terms[i]);
      merged.add(part);
      std::array<double, ExactSum::numbers> numbers{};
      part.to(numbers);
      for (std::size_t i = 0; i < numbers.size(); ++i) over_ranks[i] += numbers[i];
    }
    CHECK(merged.value() == whole);
    CHECK(ExactSum::from(over_ranks).value() == whole);
  }
}

TEST_CASE("infinities and NaNs come through, on one rank and over several") {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  CHECK(sum_of({1, infinity, 2}) == infinity);
  CHECK(sum_of({1, -infinity}) == -infinity);
  CHECK(std::isnan(sum_of({infinity, -infinity})));
  CHECK(std::isnan(sum_of({1, std::nan("")})));
  const double largest = std::numeric_limits<double>::max();
  CHECK(sum_of({largest, largest}) == infinity);
  CHECK(sum_of({largest, largest, -largest}) == largest);
  ExactSum sum, other;
  other.add(infinity), sum.add(other);
  std::array<double, ExactSum::numbers> numbers{};
  sum.to(numbers);
  CHECK(ExactSum::from(numbers).value() == infinity);
}
