// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A parameter that no use reads has a gradient of zeros, whatever lay in its buffer before.
#include "support/short_runs.hpp"

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

/// A norm with a parameter beside it that nothing reads, of the same class.
struct Spare {
  LayerNorm norm{width};
  Parameter spare = vector_parameter(6 * width);
  void parts(auto& visit) const { visit("spare", spare), visit("norm", norm); }
  Value<Common> operator()(Value<Common> x) const { return norm(x); }
};

}  // namespace

TEST_CASE("the gradient of an unread parameter is zero where its buffer serves other units in turn") {
  const auto full = [] { return Residual{Spare{}.norm, Mlp{width, 4 * width}}; };
  const Sequential model{Named{"e", Embedding{vocabulary, length, width}}, Named{"a", full()}, Named{"b", full()}, Named{"spare", Spare{}},
                         Named{"h", Head{vocabulary, width}}};
  for (const AnySharding& sharding : {AnySharding{ZeRO<2>{}}, AnySharding{ZeRO<3>{}}, AnySharding{ZeRO<3>{.ahead = false}}}) {
    const ShortRun run = short_run(model, {.degrees = {.data = 2}, .sharding = sharding}, 2);
    CHECK(run.thrown == "");
    const std::vector<double> zeros(6 * width);
    CHECK(run.gradients.at("spare.spare") == zeros);
  }
}
