// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Subject of tests/lint/labels.py: labels of the folder (lint), of the file and of a case, and names that need care.
// labels: unit
#include <doctest/doctest.h>

#include <cstring>

TEST_CASE("a case with the labels of its folder and file") { CHECK(doctest::getContextOptions() != nullptr); }

TEST_CASE("a case with two labels of its own" * doctest::test_suite("matrix probe")) { CHECK(doctest::getContextOptions() != nullptr); }

TEST_CASE("commas, \"quotes\", a*star, [brackets]; a $dollar, a back\\slash and 'more'") {
  // Found under its own name, or this would not run.
  CHECK(std::strlen("doctest") == 7);
}
