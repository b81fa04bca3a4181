// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A covering array: few rows of choices in which each pair of two factors' choices that can occur meets at least once.
///
///     Covering array = covering_array({6, 3, 2}, [](const std::vector<Extent>& row) { return row[0] != 5 || row[1] != 0; });
///     // array.rows[i][f]: the choice of factor f
///
/// `allowed` is asked of unfinished rows too, where `unset` stands for a choice that isn't made yet.
#pragma once

#include <dsx/core/shape.hpp>

#include <algorithm>
#include <limits>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

namespace toy {

using dsx::Extent;
inline constexpr Extent unset = std::numeric_limits<Extent>::max();

/// Choice i of factor a beside choice j of factor b; a < b.
struct Pair {
  Extent a, i, b, j;
  friend auto operator<=>(const Pair&, const Pair&) = default;
};

struct Covering {
  std::vector<std::vector<Extent>> rows{};
  std::set<Pair> pairs{};  // that can occur, all covered
};

namespace detail {

template <class Allowed>
struct Coverer {
  const std::vector<Extent>& choices;
  Allowed& allowed;
  std::set<Pair> open{};
  std::vector<std::vector<Extent>> used{};  // how often, by factor and choice

  static Pair pair(Extent a, Extent i, Extent b, Extent j) { return a < b ? Pair{a, i, b, j} : Pair{b, j, a, i}; }
  Extent gain(const std::vector<Extent>& row, Extent f, Extent choice) const {
    Extent met = 0;
    for (Extent other = 0; other < row.size(); ++other)
      if (other != f && row[other] != unset) met += open.count(pair(f, choice, other, row[other]));
    return met;
  }
  /// Makes the choices that are left, each time the factor and choice that meets most; false if there is no way.
  bool finish(std::vector<Extent>& row) {
    struct Best {
      Extent f, choice, met;
    };
    std::vector<Best> next;
    for (Extent f = 0; f < row.size(); ++f)
      for (Extent choice = 0; row[f] == unset && choice < choices[f]; ++choice) next.push_back({f, choice, gain(row, f, choice)});
    if (next.empty()) return true;
    const auto first = std::max_element(next.begin(), next.end(), [&](const Best& x, const Best& y) {
      return std::tuple{x.met, used[y.f][y.choice]} < std::tuple{y.met, used[x.f][x.choice]};
    });
    // Of one factor only: if none of its choices can be made, those before were wrong.
    std::erase_if(next, [f = first->f](const Best& b) { return b.f != f; });
    std::stable_sort(next.begin(), next.end(),
                     [&](const Best& x, const Best& y) { return std::tuple{y.met, used[x.f][x.choice]} < std::tuple{x.met, used[y.f][y.choice]}; });
    for (const Best& b : next) {
      row[b.f] = b.choice;
      if (allowed(std::as_const(row)) && finish(row)) return true;
      row[b.f] = unset;
    }
    return false;
  }
};

}  // namespace detail

/// Greedy, one row at a time, from the rows that are there already: each is begun with a pair that has not met.
Covering covering_array(const std::vector<Extent>& choices, auto allowed, std::vector<std::vector<Extent>> rows = {}) {
  detail::Coverer<decltype(allowed)> cover{choices, allowed};
  for (const Extent n : choices) cover.used.emplace_back(n);
  const std::vector<Extent> none(choices.size(), unset);
  const auto beginning = [&](const Pair& p) {
    std::vector<Extent> row = none;
    row[p.a] = p.i, row[p.b] = p.j;
    return row;
  };
  for (Extent a = 0; a < choices.size(); ++a)
    for (Extent b = a + 1; b < choices.size(); ++b)
      for (Extent i = 0; i < choices[a]; ++i)
        for (Extent j = 0; j < choices[b]; ++j)
          if (const Pair p{a, i, b, j}; allowed(beginning(p))) cover.open.insert(p);
  Covering covering{.pairs = cover.open};
  const auto add = [&](const std::vector<Extent>& row) {
    for (Extent a = 0; a < row.size(); ++a) {
      ++cover.used[a][row[a]];
      for (Extent b = a + 1; b < row.size(); ++b) cover.open.erase({a, row[a], b, row[b]});
    }
    covering.rows.push_back(row);
  };
  for (const auto& row : rows) add(row);
  while (!cover.open.empty()) {
    const Pair p = *cover.open.begin();
    std::vector<Extent> row = beginning(p);
    if (cover.finish(row))
      add(row);
    else
      cover.open.erase(p), covering.pairs.erase(p);  // no row can hold both
  }
  return covering;
}

}  // namespace toy
