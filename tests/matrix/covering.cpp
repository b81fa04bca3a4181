// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The covering array leaves out no pair that can occur, and holds none that may not.
#include "support/covering.hpp"

#include <doctest/doctest.h>

using namespace toy;

namespace {

using Row = std::vector<Extent>;

/// By trying all rows: the pairs that occur in an allowed one.
std::set<Pair> possible(const Row& choices, auto allowed) {
  std::set<Pair> pairs;
  Row row(choices.size(), 0);
  for (bool more = true; more;) {
    if (allowed(row))
      for (Extent a = 0; a < row.size(); ++a)
        for (Extent b = a + 1; b < row.size(); ++b) pairs.insert({a, row[a], b, row[b]});
    more = false;
    for (Extent f = 0; f < row.size() && !more; ++f) more = ++row[f] < choices[f] || (row[f] = 0);
  }
  return pairs;
}
std::set<Pair> met(const Covering& array) {
  std::set<Pair> pairs;
  for (const Row& row : array.rows)
    for (Extent a = 0; a < row.size(); ++a)
      for (Extent b = a + 1; b < row.size(); ++b) pairs.insert({a, row[a], b, row[b]});
  return pairs;
}
bool both(const Row& row, Extent a, Extent i, Extent b, Extent j) { return row[a] == i && row[b] == j; }

}  // namespace

TEST_CASE("each pair that can occur meets in a covering array, and no other") {
  const Row choices{4, 3, 2, 5, 3};
  const auto anything = [](const Row&) { return true; };
  // The last two leave choice 4 of factor 3 only rows with choice 1 of factor 2, which choice 0 of factor 0 may not stand beside.
  const auto some = [](const Row& row) { return !both(row, 0, 0, 1, 2) && !both(row, 3, 4, 2, 0) && !both(row, 0, 0, 2, 1); };
  const Covering all = covering_array(choices, anything), part = covering_array(choices, some);
  CHECK(met(all) == possible(choices, anything));
  CHECK(met(part) == possible(choices, some));
  CHECK(part.pairs == met(part));
  CHECK(all.rows.size() < 30);  // of 360; two factors alone have 20 pairs
  for (const Row& row : part.rows) CHECK(some(row));
}
TEST_CASE("a covering array goes on from the rows that are given") {
  const Covering array = covering_array({2, 2, 2}, [](const Row&) { return true; }, {{1, 1, 1}, {0, 0, 0}});
  CHECK(array.rows[0] == Row{1, 1, 1});
  CHECK(array.rows.size() <= 5);
  CHECK(met(array).size() == 12);
}
