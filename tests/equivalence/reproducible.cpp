// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// TRAJ of sums by grains: the same bits on every layout of the same grains, and BYTES and WIRE of each cell.
// labels: traj bytes wire
// timeout: 600
#include "io/io_support.hpp"
#include "support/resumed.hpp"

#include <doctest/doctest.h>

using namespace toy;
using dsx::test::TemporaryFolder;

namespace {

constexpr Elements f32{}, bf16_over_f32{Element::bf16, Element::f32, Element::f32}, narrow{Element::bf16, Element::bf16, Element::f32};
constexpr Elements f64{Element::f64, Element::f64, Element::f64};
constexpr Extent some_steps = 6;  // clipped; whole and ragged micro-batches

Run run_of(Cell c) {
  c.reproducible = true;
  Run run = train(c, recipe_of(c), some_steps);
  CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints));
  return run;
}
/// Where two runs part.
std::string apart(const Run& a, const Run& b) {
  for (Extent i = 0; i < std::min(a.losses.size(), b.losses.size()); ++i)
    if (a.losses[i] != b.losses[i] || a.norms[i] != b.norms[i])
      return concat("step ", i, ": losses ", a.losses[i], " and ", b.losses[i], ", norms ", a.norms[i], " and ", b.norms[i]);
  for (Extent i = 0; i < std::min(a.weights.size(), b.weights.size()); ++i)
    if (!(a.weights[i] == b.weights[i])) return a.weights[i].path;
  return "";
}
void equals(const Run& one, Cell c) {
  const Run run = run_of(c);
  CHECK_MESSAGE(same(run, one), name_of(c) << " parts from one rank: " << apart(run, one));
}
Cell reproducible(Cell c) {
  c.reproducible = true;
  return c;
}

}  // namespace

TEST_CASE("eight grains give the same bits as 1 x 8, 2 x 4, 4 x 2 and 8 x 1 under every sharding policy") {
  for (const Rule rule : {Rule::sgd, Rule::adamw, Rule::muon})
    for (const Elements& elements : {f32, f64, bf16_over_f32, narrow}) {
      const Run one = run_of({.micro_batches = 8, .rule = rule, .elements = elements});
      for (const Extent data : {2, 4, 8})
        for (const Sharding s : {Sharding::replicate, Sharding::zero_1, Sharding::zero_2, Sharding::zero_3, Sharding::hpz, Sharding::mics}) {
          const bool near = s == Sharding::hpz || s == Sharding::mics;
          equals(one, {s, {.data = data, .inner = near ? 2U : 1U}, Schedule::single, 8 / data, false, rule, elements});
        }
    }
}

TEST_CASE("grains whose number or whose ranks are no powers of two give the same bits") {
  const Run six = run_of({.micro_batches = 6, .rule = Rule::adamw});
  for (const Extent data : {2, 3, 6})
    for (const Sharding s : {Sharding::replicate, Sharding::zero_2, Sharding::zero_3})
      equals(six, {s, {.data = data}, Schedule::single, 6 / data, false, Rule::adamw});
  const Run five = run_of({.micro_batches = 5, .rule = Rule::muon, .elements = f32});
  equals(five, {Sharding::zero_3, {.data = 5}, Schedule::single, 1, true, Rule::muon, f32});
}

TEST_CASE("pipelines, with a tie on two stages, give the bits of one stage") {
  for (const Elements& elements : {f32, narrow}) {
    const Run one = run_of({.micro_batches = 8, .rule = Rule::adamw, .elements = elements});
    for (const Schedule schedule : {Schedule::gpipe, Schedule::one_forward_one_backward, Schedule::interleaved})
      for (const Sharding s : {Sharding::replicate, Sharding::zero_2, Sharding::zero_3})
        for (const Extent data : {1, 2, 4}) equals(one, {s, {.data = data, .pipe = 2}, schedule, 8 / data, false, Rule::adamw, elements});
    equals(one, {Sharding::mics, {.data = 4, .inner = 2, .pipe = 2}, Schedule::one_forward_one_backward, 2, true, Rule::adamw, elements});
    equals(one, {Sharding::zero_1, {.data = 2, .pipe = 4}, Schedule::gpipe, 4, false, Rule::adamw, elements});
  }
}

TEST_CASE("with as many tensor ranks, split by tokens or not, the bits don't depend on data ranks, accumulation and stages") {
  for (const bool token_split : {false, true}) {
    const Run one = run_of({Sharding::replicate, {.tensor = 2, .token_split = token_split}, Schedule::single, 8, false, Rule::adamw, f32});
    for (const Sharding s : {Sharding::replicate, Sharding::zero_1, Sharding::zero_3}) {
      equals(one, {s, {.data = 2, .tensor = 2, .token_split = token_split}, Schedule::single, 4, false, Rule::adamw, f32});
      equals(one,
             {s, {.data = 2, .tensor = 2, .pipe = 2, .token_split = token_split}, Schedule::one_forward_one_backward, 4, false, Rule::adamw, f32});
    }
  }
}

TEST_CASE("wherever gradients and state rest, the bits are those of everything resident") {
  const Run one = run_of({.micro_batches = 8, .rule = Rule::adamw, .elements = bf16_over_f32});
  for (const Tier tier : {Tier::host, Tier::disk})
    for (const Sharding s : {Sharding::replicate, Sharding::zero_3, Sharding::mics})
      for (const Extent pipe : {1, 2}) {
        const bool near = s == Sharding::mics;
        equals(one, {s,
                     {.data = 4, .inner = near ? 2U : 1U, .pipe = pipe},
                     pipe > 1 ? Schedule::gpipe : Schedule::single,
                     2,
                     false,
                     Rule::adamw,
                     bf16_over_f32,
                     {tier, tier, tier, tier}});
      }
  equals(one, {.degrees = {.data = 2},
               .micro_batches = 4,
               .rule = Rule::adamw,
               .elements = bf16_over_f32,
               .rests = {Tier::device, Tier::host, Tier::device, Tier::device}});
}

TEST_CASE("a run that goes on with other ranks, micro-batches and policies has the bits of one that never stopped" * doctest::test_suite("resume")) {
  const TemporaryFolder folder;
  const Cell four = reproducible({Sharding::zero_3, {.data = 4}, Schedule::single, 2, false, Rule::adamw, bf16_over_f32});
  const Cell two =
      reproducible({Sharding::replicate, {.data = 2, .pipe = 2}, Schedule::one_forward_one_backward, 4, true, Rule::adamw, bf16_over_f32});
  const Run whole = stretch(four, {0, 8}, {}, {}), first = stretch(four, {0, 4}, {}, folder / "four");
  const Run rest = stretch(two, {4, 8}, folder / "four", folder / "eight");
  for (const Run* run : {&whole, &first, &rest}) CHECK_MESSAGE(run->complaints.empty(), text_of(run->complaints));
  REQUIRE(whole.losses.size() == 8);
  CHECK(std::equal(rest.losses.begin(), rest.losses.end(), whole.losses.begin() + 4, whole.losses.end()));
  CHECK(std::equal(rest.norms.begin(), rest.norms.end(), whole.norms.begin() + 4, whole.norms.end()));
  CHECK(rest.weights == whole.weights);
  CHECK(same(stretch(four, {8, 9}, folder / "eight", {}), stretch(two, {8, 9}, folder / "eight", {})));
}

TEST_CASE("an evaluation gives the same bits on every layout of the same grains") {
  const auto loss_of = [](const Cell& c) {
    double loss = 0;
    launch_threads(c.ranks(), [&](Session& session) {
      const Mesh mesh{session, c.degrees};
      Weights weights{mesh, make_model(), recipe_of(c)};
      Evaluator evaluator{weights, TokenLoss{.chunk = 10}, c.feed().rows()};
      const double here = evaluator.loss(c.feed()(3, mesh.coordinate(Axes::data)));
      if (session.is_root()) loss = here;
    });
    return loss;
  };
  const double one = loss_of(reproducible({.micro_batches = 8}));
  CHECK(one > 2);
  for (const Extent data : {2, 4, 8}) {
    CHECK(loss_of(reproducible({Sharding::zero_3, {.data = data}, Schedule::single, 8 / data})) == one);
    CHECK(loss_of(reproducible({Sharding::zero_3, {.data = data, .pipe = 2}, Schedule::gpipe, 8 / data})) == one);
  }
}

TEST_CASE("sums by grains are sums: they lie within rounding of the others") {
  for (const Rule rule : {Rule::sgd, Rule::adamw, Rule::muon})
    for (const Schedule schedule : {Schedule::single, Schedule::gpipe}) {
      const Cell c{Sharding::zero_2, {.data = 2, .pipe = schedule == Schedule::gpipe ? 2U : 1U}, schedule, 4, false, rule};
      CHECK(distance(run_of(c), train(c, recipe_of(c), some_steps)) <= 1e-12);
    }
}

TEST_CASE("without fixed grains these layouts part in the last bits, so that equality says something") {
  const Run one = train({.micro_batches = 8, .elements = f32}), eight = train({.degrees = {.data = 8}, .elements = f32});
  CHECK(one.losses[0] == doctest::Approx(eight.losses[0]).epsilon(1e-5));
  CHECK(one.norms != eight.norms);
  CHECK_FALSE(same(one, eight));
}
