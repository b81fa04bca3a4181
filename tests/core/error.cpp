// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include <dsx/core/error.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <set>

using namespace dsx;

TEST_CASE("an error carries its number and the values that failed") {
  try {
    fail<308>(9, " rows can't be shared by ", 2, " ranks");
  } catch (const Error& error) {
    CHECK(error.number() == 308);
    CHECK(std::string{error.what()} == "dsx-E308: 9 rows can't be shared by 2 ranks");
    return;
  }
  FAIL("nothing was thrown");
}

TEST_CASE("texts, numbers, characters and paths stand in a message as one writes them") {
  CHECK(concat("a", std::string{"b"}, std::string_view{"c"}, 'd') == "abcd");
  CHECK(concat(-3, ' ', 4'000'000'000U, ' ', true) == "-3 4000000000 1");
  CHECK(concat(0.5, ' ', 1e300, ' ', 0.1F) == "0.5 1e+300 0.100000001");
  CHECK(concat(std::filesystem::path{"runs"} / "model.safetensors") == "runs/model.safetensors");
}

TEST_CASE("each number stands once in the table, in its house, with a title") {
  std::set<int> numbers;
  for (const auto& [number, title] : error_table) {
    INFO(number);
    CHECK(numbers.insert(number).second);
    CHECK((number > 100 && number < 900));
    CHECK(std::string_view{title}.size() > 5);
    CHECK(is_known_error(number));
  }
  CHECK_FALSE(is_known_error(999));
  CHECK_FALSE(is_known_error(0));
}
