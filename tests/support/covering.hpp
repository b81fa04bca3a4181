// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A covering array: few rows of choices in which each allowed pair of two factors' choices meets at least once.
///
///     auto rows = toy::covering_array({6, 3, 2}, [](const std::vector<Extent>& row) { return row[0] != 5 || row[1] > 0; });
///     // rows[i][f]: the choice of factor f
#pragma once

#include <dsx/core/shape.hpp>

#include <set>
#include <tuple>
#include <utility>
#include <vector>

namespace toy {

using dsx::Extent;

struct Covering {
  std::vector<std::vector<Extent>> rows{};
  Extent pairs = 0;  // that can occur, all covered
};

/// Greedy: each row is, of all allowed ones, one that meets most pairs not yet met. For products of some thousand rows.
inline Covering covering_array(const std::vector<Extent>& choices, auto allowed) {
  using Pair = std::tuple<Extent, Extent, Extent, Extent>;
  std::vector<std::vector<Extent>> all;
  std::vector<Extent> row(choices.size(), 0);
  for (bool more = true; more;) {
    if (allowed(std::as_const(row))) all.push_back(row);
    more = false;
    for (Extent f = 0; f < row.size() && !more; ++f) {
      if (++row[f] < choices[f])
        more = true;
      else
        row[f] = 0;
    }
  }
  const auto pairs_of = [](const std::vector<Extent>& r) {
    std::vector<Pair> pairs;
    for (Extent a = 0; a < r.size(); ++a)
      for (Extent b = a + 1; b < r.size(); ++b) pairs.push_back({a, r[a], b, r[b]});
    return pairs;
  };
  std::set<Pair> open;
  for (const auto& r : all)
    for (const Pair& p : pairs_of(r)) open.insert(p);
  Covering covering{.pairs = open.size()};
  while (!open.empty()) {
    const std::vector<Extent>* best = nullptr;
    Extent most = 0;
    for (const auto& r : all) {
      Extent met = 0;
      for (const Pair& p : pairs_of(r)) met += open.count(p);
      if (met > most) most = met, best = &r;
    }
    for (const Pair& p : pairs_of(*best)) open.erase(p);
    covering.rows.push_back(*best);
  }
  return covering;
}

}  // namespace toy
