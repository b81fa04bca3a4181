// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: traj bytes wire
/// Training is the same however experts are shared out over ranks; bytes at rest and on the wire are those of the formulas.
#include "support/short_runs.hpp"

#include <doctest/doctest.h>

using namespace dsx;
using test::Layout;
using test::short_run;
using test::ShortRun;

namespace {

constexpr Extent width = test::width;

template <class Router>
auto model_of(const Router& router) {
  const Experts experts{router.experts, router, Chain{Mlp{width, 6}, Dropped{0.2}}};
  return Sequential{Named{"e", Embedding{test::vocabulary, test::length, width}},
                    Named{"moe", Residual{LayerNorm{width}, experts}},
                    Named{"both", Residual{ResidualExpert{width, Mlp{width, 5}, SharedExpert{Mlp{width, 3}, experts}}}},
                    Named{"h", Chain{LayerNorm{width}, Head{test::vocabulary, width}}}};
}
std::string text_of(const Layout& layout) {
  const Degrees& d = layout.degrees;
  return concat("data ", d.data, " (inner ", d.inner, "), tensor ", d.tensor, d.token_split ? " by tokens" : "", ", pipe ", d.pipe, ", expert ", d.expert);
}
constexpr Dropless<2> router{.width = width, .experts = 4, .balance = {.weight = 0.5, .by_sequence = true}, .z_loss = 0.1};

}  // namespace

TEST_CASE("experts shared out over ranks learn what they learn on one") {
  const auto model = model_of(router);
  const ShortRun one = short_run(model, {});
  REQUIRE(one.thrown == "");
  for (const Layout& layout : {Layout{.degrees = {.data = 2, .expert = 2}}, Layout{.degrees = {.data = 4, .expert = 4}}}) {
    INFO(text_of(layout));
    const ShortRun many = short_run(model, layout);
    CHECK(many.thrown == "");
    CHECK(distance(many, one) <= 1e-12);
  }
}
