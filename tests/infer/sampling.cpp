// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include <dsx/infer/sampling.hpp>

#include <doctest/doctest.h>

#include <cmath>

using namespace dsx;

TEST_CASE("top-k keeps ties, top-p keeps the token that crosses it") {
  const std::vector<double> logits{std::log(0.1), std::log(0.4), std::log(0.2), std::log(0.2), std::log(0.1)};
  const auto two = probabilities(logits, {.top_k = 2});
  CHECK(two[0] == 0);
  CHECK(two[2] == doctest::Approx(0.25));
  CHECK(two[3] == two[2]);
  const auto most = probabilities(logits, {.top_p = 0.5});
  CHECK(most[1] == doctest::Approx(2.0 / 3));
  CHECK(most[2] + most[3] == doctest::Approx(1.0 / 3));
  CHECK(probabilities(logits, {.top_p = 1e-9})[1] == 1);
}

TEST_CASE("draws follow the probabilities") {
  const std::vector<double> logits{std::log(0.5), std::log(0.3), std::log(0.2)};
  std::vector<int> seen(3);
  for (Extent i = 0; i < 20'000; ++i) ++seen[std::size_t(choose(logits, {.seed = 3}, 0, i))];
  CHECK(std::abs(seen[0] - 10'000) < 300);
  CHECK(std::abs(seen[1] - 6'000) < 300);
  CHECK(choose(logits, {.temperature = 0}, 0, 0) == 0);
  CHECK(draw(std::vector{0.25, 0.0, 0.75}, 0.25) == 2);
  CHECK(draw(std::vector{0.25, 0.75, 0.0}, 0.9999999999) == 1);
}
