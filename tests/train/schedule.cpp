// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include "support/golden.hpp"

#include <dsx/train/schedule.hpp>

#include <doctest/doctest.h>

using namespace dsx;

TEST_CASE("the rate warms up linearly and falls along half a cosine, as in PyTorch's run" * doctest::test_suite("gold")) {
  const SafetensorsFile training{test::golden("gpt2_tiny/training.safetensors")};
  const CosineRate rate{.rate = 1e-3, .warmup = 5, .steps = 20};
  std::vector<double> mine;
  for (Extent step = 0; step < 20; ++step) mine.push_back(rate.at(step));
  CHECK(test::relative(mine, test::numbers(training, "learning_rate")) < 1e-14);
}

TEST_CASE("the rate ends at its least and stays there") {
  const CosineRate rate{.rate = 2, .least = 0.5, .warmup = 4, .steps = 12};
  CHECK(rate.at(0) == 0.5);
  CHECK(rate.at(3) == 2);
  CHECK(rate.at(4) == 2);
  CHECK(rate.at(8) == doctest::Approx(1.25));
  CHECK(rate.at(12) == 0.5);
  CHECK(rate.at(1000) == 0.5);
  for (Extent step = 4; step < 20; ++step) CHECK(rate.at(step + 1) <= rate.at(step));
  CHECK(CosineRate{.rate = 3, .warmup = 10, .steps = 10}.at(50) == 3);
  CHECK(CosineRate{.rate = 3, .steps = 10}.at(0) == 3);
}
