// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Tied parameters over pipeline stages: whatever the order of their uses, gradients and weights are those of one stage.
// labels: traj
#include "support/short_runs.hpp"

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

/// Two matrices that other layers may use as well.
struct Bottleneck {
  Parameter down, up;
  Bottleneck(Extent hidden, std::string_view tie_down, std::string_view tie_up, float deviation = 0.3F)
      : down{{width, hidden}, {0, deviation}, Role::matrix, {}, tie_down}, up{{hidden, width}, {0, deviation}, Role::matrix, {}, tie_up} {}
  void parts(auto& visit) const { visit("down", down), visit("up", up); }
  Value<Common> operator()(Value<Common> x) const { return x + linear<op::Matmul>(gelu(linear<op::Matmul>(x, down)), up); }
};

/// Six units: two stages are e a b | c d h.
auto model_of(const Bottleneck& a, const Bottleneck& b, const Bottleneck& c, const Bottleneck& d, std::string_view table = {}) {
  return Sequential{Named{"e", Embedding{vocabulary, length, width, 0, table}}, Named{"a", a}, Named{"b", b}, Named{"c", c}, Named{"d", d},
                    Named{"h", Head{vocabulary, width, table}}};
}
using Model = decltype(model_of(Bottleneck{1, "", ""}, Bottleneck{1, "", ""}, Bottleneck{1, "", ""}, Bottleneck{1, "", ""}));

void check_equals_one_stage(const Model& model) {
  const ShortRun one = short_run(model, {});
  CHECK(one.thrown == "");
  const Layout layouts[] = {{.degrees = {.pipe = 2}},
                            {.degrees = {.pipe = 2}, .schedule = GPipe{}, .recompute = RecomputeUnits{}},
                            {.degrees = {.pipe = 3}},
                            {.degrees = {.data = 2, .pipe = 2}, .sharding = ZeRO<2>{}},
                            {.degrees = {.tensor = 2, .pipe = 2, .token_split = true}}};
  for (const Layout& layout : layouts) {
    INFO("data ", layout.degrees.data, ", tensor ", layout.degrees.tensor, ", pipe ", layout.degrees.pipe);
    const ShortRun many = short_run(model, layout);
    CHECK(many.thrown == "");
    CHECK(distance(many, one) <= 1e-12);
  }
}

}  // namespace

TEST_CASE("ties that the stages meet in opposite orders are summed each with its own") {
  // Stage 0 uses outer before inner, stage 1 inner before outer; all four tensors are of one size.
  const Bottleneck outer{4, "outer.down", "outer.up"}, inner{4, "inner.down", "inner.up"};
  check_equals_one_stage(model_of(outer, inner, inner, outer));
}

TEST_CASE("ties of different sizes are summed over stages whatever the order of their uses") {
  const Bottleneck outer{4, "outer.down", "outer.up"}, inner{6, "inner.down", "inner.up"};
  check_equals_one_stage(model_of(outer, inner, inner, outer, "table"));
}

TEST_CASE("ties that share only some of the stages are summed over those") {
  const Bottleneck a{4, "a-c", "a-d"}, b{4, "b-d", "b-c"}, c{4, "a-c", "b-c"}, d{4, "b-d", "a-d"};
  check_equals_one_stage(model_of(a, b, c, d));
}

TEST_CASE("a tie whose uses would start differently starts as its first use on every stage") {
  const Bottleneck small{4, "down", "up", 0.1F}, large{4, "down", "up", 0.7F}, alone{4, "", ""};
  check_equals_one_stage(model_of(small, alone, alone, large));
  for (const Extent pipe : {1, 2}) {
    const ShortRun start = short_run(model_of(small, alone, alone, large), {.degrees = {.pipe = pipe}}, 0);
    CHECK(start.thrown == "");
    double squares = 0;
    for (const double w : start.weights.at("down")) squares += w * w;
    CHECK(std::sqrt(squares / 32) == doctest::Approx(0.1).epsilon(0.3));
  }
}

TEST_CASE("uses of a tie on two stages that disagree in shape, role, split or training are refused: dsx-E404") {
  const auto refusal = [](const Bottleneck& first, const Bottleneck& last) {
    const Bottleneck alone{4, "", ""};
    std::string what;
    for (const Rank rank : {0, 1}) {
      Session session = Session::dry(rank, 2);
      const Mesh mesh{session, {.pipe = 2}};
      try {
        const Weights weights{mesh, model_of(first, alone, alone, last), Layout{}.recipe()};
        return std::string{"nothing"};
      } catch (const Error& e) {
        CHECK((what.empty() || what == e.what()));
        what = e.what();
      }
    }
    return what;
  };
  const Bottleneck plain{4, "down", "up"};
  CHECK(refusal(plain, plain) == "nothing");
  CHECK(refusal(plain, Bottleneck{5, "down", "_"}).starts_with("dsx-E404: the uses of tied parameter down disagree: one is 8 x 4, another 8 x 5"));
  Bottleneck other = plain;
  other.up.role = Role::table;
  CHECK(refusal(plain, other).starts_with("dsx-E404: the uses of tied parameter up disagree"));
  other = plain, other.up.trained = false;
  CHECK(refusal(plain, other).starts_with("dsx-E404: the uses of tied parameter up disagree"));
  Bottleneck cut = plain;
  cut.down.split = {Cut::columns, 1, 2};
  CHECK(refusal(plain, cut).starts_with("dsx-E404: the uses of tied parameter down disagree"));
  // Of other grains its elements would lie on other ranks.
  other = plain, other.down.split = {Cut::columns, 1, 1};
  CHECK(refusal(other, cut).starts_with("dsx-E404: the uses of tied parameter down disagree"));
}
