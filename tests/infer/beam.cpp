// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Beam search on a table of probabilities whose best sequences are known by hand.
#include <dsx/infer/beam.hpp>

#include <doctest/doctest.h>

#include <cmath>

using namespace dsx;

namespace {

std::vector<double> logs(std::initializer_list<double> probabilities) {
  std::vector<double> values;
  for (const double p : probabilities) values.push_back(std::log(p));
  return values;
}
/// After token 0: 0.4 0.35 0.25 at most; after token 1 token 2 is nearly sure.
std::vector<std::vector<double>> rows_of(const BeamSearch& search) {
  std::vector<std::vector<double>> rows;
  for (const Beam& b : search.beams()) {
    const int last = b.tokens.empty() ? -1 : b.tokens.back();
    rows.push_back(last == -1 ? logs({0.5, 0.4, 0.1}) : last == 1 ? logs({0.05, 0.05, 0.9}) : logs({0.4, 0.35, 0.25}));
  }
  return rows;
}
Beam run(Extent beams, double penalty, const std::vector<int>& ends, Extent turns) {
  BeamSearch search{beams, penalty, ends};
  for (Extent t = 0; t < turns && !search.done(); ++t) search.advance(rows_of(search));
  return search.best();
}

}  // namespace

TEST_CASE("two beams find what greedy search misses") {
  CHECK(run(1, 1, {}, 2).tokens == std::vector{0, 0});
  const Beam best = run(2, 1, {}, 2);
  CHECK(best.tokens == std::vector{1, 2});
  CHECK(best.score == doctest::Approx(std::log(0.4 * 0.9) / 2));
}

TEST_CASE("beams know their parents") {
  BeamSearch search{2, 1, {}};
  search.advance(rows_of(search));
  CHECK(search.beams()[0].tokens == std::vector{0});
  CHECK(search.beams()[1].tokens == std::vector{1});
  search.advance(rows_of(search));
  CHECK(search.beams()[0].parent == 1);
  CHECK(search.beams()[1].parent == 0);
}

TEST_CASE("the length penalty decides between a short sequence that has ended and a long one") {
  // Token 2 ends. (1, 2): log .36 after two tokens. Without ends: (0, 0, 0): log .08.
  CHECK(run(2, 1, {2}, 3).tokens == std::vector{1, 2});
  CHECK(run(2, 0, {2}, 3).tokens == std::vector{1, 2});
  const Beam longer = run(2, 8, {2}, 3);  // scores are over tokens^8: the longer, the nearer to 0
  CHECK(longer.tokens.size() == 3);
}

TEST_CASE("a search ends when no beam can beat the finished ones") {
  BeamSearch search{1, 1, {0}};
  const std::vector<std::vector<double>> row{logs({0.9, 0.05, 0.05})};
  search.advance(row);
  CHECK(search.done());
  CHECK(search.best().tokens == std::vector{0});
  CHECK(search.best().score == doctest::Approx(std::log(0.9)));
}

TEST_CASE("any of several ends finishes a beam, and enough candidates are looked at for the others to go on") {
  BeamSearch search{1, 1, {0, 1}};
  const std::vector<std::vector<double>> row{logs({0.5, 0.4, 0.1})};
  search.advance(row);
  CHECK(search.best().tokens == std::vector{0});
  REQUIRE(search.beams().size() == 1);
  CHECK(search.beams()[0].tokens == std::vector{2});
  BeamSearch other{2, 1, {2, 1}};
  other.advance(row);
  CHECK(other.beams().size() == 1);  // 1 has ended, and 2 isn't among the first two
}
