// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Text from a model whose experts lie on several ranks.
#include "support/expert_axis.hpp"

#include <dsx/infer/generator.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::width;

TEST_CASE("a generator over experts on several ranks makes the text of one rank, on every rank") {
  const auto model = test::mixture(Dropless<2>{.width = width, .experts = 4});
  const std::vector<std::vector<int>> prompts{{1, 2, 3}, {7}, {4, 4}};
  const auto texts_on = [&](const Degrees& degrees) {
    std::vector<std::vector<std::vector<int>>> texts(degrees.ranks());
    launch_threads(degrees.ranks(), [&](Session& session) {
      const Mesh mesh{session, degrees};
      Weights weights{mesh, model, Recipe{ZeRO<3>{}}};
      Generator generator{weights, {.sequences = 3, .length = test::length, .vocabulary = test::vocabulary, .cached = false}};
      texts[session.rank()] = generator.generate(prompts, 5, {.end = 5});
    });
    return texts;
  };
  const auto one = texts_on({}).front();
  for (const Degrees& d : {Degrees{.data = 2, .expert = 2}, Degrees{.data = 4, .expert = 4}, Degrees{.data = 2, .tensor = 2, .expert = 2}})
    for (const auto& text : texts_on(d)) CHECK(text == one);
}
