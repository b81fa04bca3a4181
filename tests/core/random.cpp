// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include <dsx/core/random.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <string_view>

using namespace dsx;

TEST_CASE("Philox gives the known answers of its authors") {
  using Words = std::array<std::uint32_t, 4>;
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint32_t ones = 0xFFFFFFFF;
  CHECK(philox({ones, ones, ones, ones}, {ones, ones}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) == Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
  static_assert(philox({0, 0, 0, 0}, {0, 0})[0] == 0x6627e8d5);
}

TEST_CASE("a draw is a function of key, row and column alone") {
  const RandomKey key{.seed = 5, .step = 3, .unit = 2, .ordinal = 1};
  for (const RowId row : {RowId(0), RowId(77), RowId(1) << 40})
    for (std::uint32_t column = 0; column < 9; ++column)
      CHECK(uniform(key, row, column) == to_uniform(random_words(key, row, column / 4)[column % 4]));
}

TEST_CASE("every part of the key, and the row, gives other numbers") {
  const auto words = [](RandomKey key, RowId row = 0) { return random_words(key, row, 0); };
  std::set<std::array<std::uint32_t, 4>> seen{words({})};
  for (std::uint32_t i = 1; i <= 50; ++i) {
    seen.insert(words({.seed = i})), seen.insert(words({.step = i})), seen.insert(words({.unit = i})), seen.insert(words({.ordinal = i}));
    seen.insert(words({}, i)), seen.insert(words({}, RowId(i) << 32));
    seen.insert(random_words({}, 0, i)), seen.insert(random_words({}, 0, 0, i));
  }
  CHECK(seen.size() == 401);
}

TEST_CASE("10,000 draws in each of two units are streams of their own") {
  std::set<std::array<std::uint32_t, 2>> keys;
  std::set<std::array<std::uint32_t, 4>> words;
  for (const std::uint32_t unit : {0U, 1U})
    for (std::uint32_t ordinal = 0; ordinal < 10'000; ++ordinal) {
      const RandomKey stream{.seed = 1, .step = 2, .unit = unit, .ordinal = ordinal};
      keys.insert(philox_key(stream)), words.insert(random_words(stream, 3, 0));
    }
  CHECK(keys.size() == 20'000);
  CHECK(words.size() == 20'000);
}

TEST_CASE("uniform numbers fill [0, 1) evenly") {
  double sum = 0, squares = 0;
  std::array<int, 16> bins{};
  constexpr int rows = 500, columns = 64;
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; ++column) {
      const double u = double(uniform({.seed = 9}, RowId(row), std::uint32_t(column)));
      REQUIRE((u >= 0 && u < 1));
      sum += u, squares += u * u, ++bins[std::size_t(u * 16)];
    }
  constexpr double count = rows * columns;
  CHECK(std::abs(sum / count - 0.5) < 4 / std::sqrt(12 * count));
  CHECK(std::abs(squares / count - 1.0 / 3) < 4 * std::sqrt(4.0 / 45 / count));
  double chi = 0;  // 15 degrees of freedom: above 37.7 once in a thousand seeds
  for (const int n : bins) chi += (n - count / 16) * (n - count / 16) / (count / 16);
  CHECK(chi < 37.7);
  CHECK(to_uniform(0xFFFFFFFF) < 1);
  CHECK(to_uniform(0) == 0);
}

TEST_CASE("paths hash as FNV-1a") {
  CHECK(hash_of(std::string_view{}) == 0xcbf29ce484222325ULL);
  CHECK(hash_of(std::string_view{"a"}) == 0xaf63dc4c8601ec8cULL);
  CHECK(hash_of(std::string_view{"foobar"}) == 0x85944171f73967e8ULL);
  CHECK(hash_of(std::string_view{"a"}, 1) != hash_of(std::string_view{"a"}));
}
