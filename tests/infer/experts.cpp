// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Text from a model whose experts lie on several ranks.
#include "support/expert_axis.hpp"

#include <dsx/infer/generator.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::width;

namespace {

/// A stream that isn't the same on each rank, as rounding may make it, only more so.
struct Apart {
  struct Tilt : Operation {
    Node x, y;
    void forward(Pass& p) const {
      const double most = 10 * double(p.mesh().session().rank());
      p.launch(
          [most](View from, View to) {
            for (Extent i = 0; i < from.size(); ++i) to.pointer<float>()[i] = from.pointer<float>()[i] + float(most * std::sin(double(i % width)));
          },
          p.view(x), p.view(y));
    }
    void towards_inputs(Pass& p) const { p.launch(kernels::pass_on, p.incoming(y), p.gradient(x)); }
  };
  void parts(auto&) const {}
  Value<Common> operator()(Value<Common> x_RC) const {
    const auto y_RC = x_RC.pass->make<Common>(width);
    x_RC.pass->run(Tilt{{}, x_RC.node, y_RC.node});
    return y_RC;
  }
};

}  // namespace

TEST_CASE("a generator over experts on several ranks makes the text of one rank, on every rank") {
  const auto model = test::mixture(Dropless<2>{.width = width, .experts = 4});
  const std::vector<std::vector<int>> prompts{{1, 2, 3}, {7}, {4, 4}};
  const auto texts_on = [&](const Degrees& degrees) {
    std::vector<std::vector<std::vector<int>>> texts(degrees.ranks());
    launch_threads(degrees.ranks(), [&](Session& session) {
      const Mesh mesh{session, degrees};
      Weights weights{mesh, model, Recipe{ZeRO<3>{}}};
      Generator generator{weights, {.sequences = 3, .length = test::length, .vocabulary = test::vocabulary, .cached = false}};
      texts[session.rank()] = generator.generate(prompts, 5, {.ends = {5}});
    });
    return texts;
  };
  const auto one = texts_on({}).front();
  for (const Degrees& d : {Degrees{.data = 2, .expert = 2}, Degrees{.data = 4, .expert = 4}, Degrees{.data = 2, .tensor = 2, .expert = 2}})
    for (const auto& text : texts_on(d)) CHECK(text == one);
}
TEST_CASE("ranks that share out experts choose the same tokens, whatever rounding does to their streams") {
  const Experts experts{4, Dropless<2>{.width = width, .experts = 4}, Mlp{width, 6}};
  const Sequential model{Embedding{test::vocabulary, test::length, width}, Residual{LayerNorm{width}, experts}, Apart{},
                         Chain{LayerNorm{width}, Head{test::vocabulary, width}}};
  std::vector<std::vector<std::vector<int>>> texts(2);
  launch_threads(2, [&](Session& session) {
    const Mesh mesh{session, {.data = 2, .expert = 2}};
    Weights weights{mesh, model, Recipe{}};
    Generator generator{weights, {.sequences = 1, .length = test::length, .vocabulary = test::vocabulary, .cached = false}};
    texts[session.rank()] = generator.generate(std::vector<std::vector<int>>{{1, 2}}, 5, {.temperature = 0});
  });
  CHECK(texts[0] == texts[1]);
}
