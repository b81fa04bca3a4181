// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Each epoch draws every window once, in another order, and no layout of ranks changes what a step draws.
#include <io/io_support.hpp>

#include <dsx/data/batches.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

using namespace dsx;
using namespace dsx::test;

TEST_CASE("a permutation of any size hits each number once") {
  for (Extent size = 1; size < 70; ++size)
    for (const std::uint64_t seed : {0ULL, 5ULL, ~0ULL}) {
      std::vector<int> hits(size, 0);
      const Permutation order{size, seed, 3};
      for (Extent i = 0; i < size; ++i) ++hits[order(i)];
      CHECK(hits == std::vector<int>(size, 1));
    }
  // Numbers beyond 32 bits: still inside, still apart.
  const Extent huge = (Extent(1) << 33) + 12345;
  std::set<Extent> seen;
  for (Extent i = 0; i < 1000; ++i) seen.insert(Permutation{huge, 1, 1}(i));
  CHECK(seen.size() == 1000);
  CHECK(*seen.rbegin() < huge);
  CHECK(*seen.rbegin() > huge / 2);
}

TEST_CASE("a permutation is spread evenly and depends on seed and stream") {
  // Where the number 0 goes, over 4,000 streams: each of 10 places 400 times, within 5 standard deviations.
  std::vector<int> hits(10, 0);
  for (std::uint64_t stream = 0; stream < 4000; ++stream) ++hits[Permutation{10, 7, stream}(0)];
  for (const int n : hits) CHECK(std::abs(n - 400) < 5 * std::sqrt(400 * 0.9));
  const auto order = [](std::uint64_t seed, std::uint64_t stream) {
    std::vector<Extent> all;
    for (Extent i = 0; i < 100; ++i) all.push_back(Permutation{100, seed, stream}(i));
    return all;
  };
  CHECK(order(1, 1) == order(1, 1));
  CHECK(order(1, 1) != order(2, 1));
  CHECK(order(1, 1) != order(1, 2));
  CHECK(order(1, 1) != order((1ULL << 32) + 1, 1));
  Extent fixed = 0;
  for (Extent i = 0; i < 100; ++i) fixed += order(1, 1)[i] == i;
  CHECK(fixed < 8);
}

TEST_CASE("each epoch of training covers every window once and predicts no token twice") {
  for (const Extent tokens : {65, 66, 129, 1000, 1024, 1025}) {
    const Extent context = 64;
    const TrainingWindows windows{tokens, context, 3};
    CHECK(windows.count() == (tokens - 1) / context);
    for (Extent epoch = 0; epoch < 4; ++epoch) {
      std::vector<int> predicted(tokens, 0);
      for (Extent i = 0; i < windows.count(); ++i) {
        const Window window = windows.at(epoch * windows.count() + i);
        CHECK(window.length == context + 1);
        REQUIRE(window.begin + window.length <= tokens);
        for (Extent t = window.begin + 1; t < window.range().end; ++t) ++predicted[t];
      }
      CHECK(*std::max_element(predicted.begin(), predicted.end()) == 1);
      CHECK(Extent(std::count(predicted.begin(), predicted.end(), 1)) == windows.count() * context);
    }
  }
}

TEST_CASE("epochs differ in order and in where windows begin") {
  const TrainingWindows windows{64 * 20 + 40, 64, 3};
  std::set<Extent> offsets;
  std::set<std::vector<Extent>> orders;
  for (Extent epoch = 0; epoch < 200; ++epoch) {
    std::vector<Extent> order;
    for (Extent i = 0; i < windows.count(); ++i) {
      const Window window = windows.at(epoch * windows.count() + i);
      offsets.insert(window.begin % 64);
      order.push_back(window.begin / 64);
    }
    orders.insert(order);
  }
  CHECK(orders.size() == 200);
  CHECK(offsets.size() == 40);  // 0 .. 39: what is left over
}

TEST_CASE("any layout of ranks draws the same sequences, no two ranks the same") {
  const TrainingWindows windows{100'000, 32, 11}, other{100'000, 32, 12};
  constexpr Extent rows = 24;
  for (const Extent step : {0, 1, 129, 130, 1000}) {  // 129 and 130: on both sides of an epoch's end
    std::vector<Extent> alone;
    for (Extent row = 0; row < rows; ++row) alone.push_back(windows.at(step * rows + row).begin);
    CHECK(std::set<Extent>(alone.begin(), alone.end()).size() == rows);
    for (const Extent ranks : {2, 4, 5}) {
      std::vector<Extent> together;
      for (Rank rank = 0; rank < ranks; ++rank) {
        const TrainingWindows own{100'000, 32, 11};  // each rank has nothing but the numbers
        const Range mine = share({0, rows}, ranks, rank);
        for (Extent row = mine.begin; row < mine.end; ++row) together.push_back(own.at(step * rows + row).begin);
      }
      CHECK(together == alone);
    }
    CHECK(other.at(step * rows).begin != alone[0]);
  }
}

TEST_CASE("validation windows follow each other") {
  const ValidationWindows windows = validation_windows(300, 64);
  CHECK(windows.count() == 4);
  for (Extent i = 0; i < windows.count(); ++i) CHECK(windows.at(i) == Window{i * 64, 65});
  CHECK(windows.at(3).range().end <= 300);
}

TEST_CASE("fewer tokens than one window are refused with the values") {
  for (const auto& refusal : {error_of([] { TrainingWindows{64, 64, 1}; }), error_of([] { validation_windows(64, 64); })}) {
    CHECK(refusal == 651);
    CHECK(refusal.says("64 tokens"));
    CHECK(refusal.says("65"));
  }
  CHECK(error_of([] { validation_windows(0, 64); }) == 651);
  CHECK(error_of([] { validation_windows(10, 0); }) == 651);
  CHECK(error_of([] { validation_windows(300, 64).at(4); }) == 651);
  CHECK(validation_windows(65, 64).count() == 1);
}
