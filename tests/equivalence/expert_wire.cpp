// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: wire bytes resume
/// What experts on several ranks cost: bytes on the wire from the routes alone, bytes at rest a part of the whole, memory as planned; and
/// checkpoints that go from one expert degree to another.
#include "io/io_support.hpp"
#include "support/expert_axis.hpp"

#include <dsx/train/checkpoint.hpp>

#include <doctest/doctest.h>

#include <numeric>

using namespace dsx;
using test::Layout;
using test::Travelled;
using test::Watched;
using test::width;

namespace {

constexpr Dropless<2> router{.width = width, .experts = 4};

AnyRecipe recipe_of(const Layout& l, const AnyPrecision& precision) { return {l.sharding, l.schedule, l.offload, precision, l.recompute}; }

/// Elements that left a rank over the expert axis, by their type.
using Left = std::array<Extent, 16>;
Left left_of(const Traffic& traffic) {
  Left left{};
  for (const Traffic::Row& row : traffic.rows())
    if (row.verb == Verb::all_to_all) {
      CHECK(row.axes == Axes::expert);
      left[Extent(row.element)] += row.elements;
    }
  return left;
}
Extent sum(const std::array<Extent, 8>& of) { return std::accumulate(of.begin(), of.end(), Extent{0}); }

/// One step, after another.
template <class Model>
std::vector<Left> second_step(const Model& model, const Layout& layout, const AnyPrecision& precision, Travelled& seen) {
  std::vector<Left> left(layout.degrees.ranks());
  launch_threads(layout.degrees.ranks(), [&](Session& session) {
    const Mesh mesh{session, layout.degrees};
    Weights weights{mesh, model, recipe_of(layout, precision)};
    Trainer trainer{weights, AdamW{}, TokenLoss{}, {.micro_batches = layout.micro_batches(), .rows = test::length}};
    trainer.step(test::batches_of(layout, mesh, 0));
    session.traffic.clear();
    const Rank r = session.rank();
    seen.calls[r] = seen.leaving[r] = seen.leaving_first[r] = 0;
    trainer.step(test::batches_of(layout, mesh, 1));
    left[r] = left_of(session.traffic);
  });
  return left;
}

}  // namespace

TEST_CASE("rows travel once to their experts and once back, forward and again backward, and nothing else but counts and ids") {
  for (const bool narrow : {false, true})
    for (const Layout& layout : {Layout{.degrees = {.data = 2, .expert = 2}}, Layout{.degrees = {.data = 4, .expert = 2}, .sharding = ZeRO<3>{}},
                                 Layout{.degrees = {.data = 4, .expert = 4}, .recompute = RecomputeUnits{}},
                                 Layout{.degrees = {.data = 2, .tensor = 2, .expert = 2, .token_split = true}},
                                 Layout{.degrees = {.data = 2, .pipe = 2, .expert = 2}, .recompute = RecomputeOperations{}}}) {
      INFO(test::text_of(layout), narrow ? ", bf16" : ", f64");
      const AnyPrecision precision = narrow ? AnyPrecision{Bf16{}} : AnyPrecision{Fp64{}};
      Travelled seen;
      const std::vector<Left> left = second_step(test::mixture(Watched{router, &seen}), layout, precision, seen);
      const Extent n = layout.degrees.expert;
      Extent rows = 0;
      for (Rank r = 0; r < left.size(); ++r) {
        CHECK(left[r][Extent(Element::i32)] == seen.calls[r] * 4 * (n - 1) / n);  // a count for each expert elsewhere
        CHECK(left[r][Extent(Element::u64)] == seen.leaving[r]);                  // an id a row
        rows += left[r][Extent(narrow ? Element::bf16 : Element::f64)];
      }
      CHECK(sum(seen.leaving_first) > 0);
      CHECK(sum(seen.calls) > 0);
      CHECK((sum(seen.leaving) == 2 * sum(seen.leaving_first)) == layout.recompute.units());
      CHECK(rows == width * (2 * sum(seen.leaving) + 2 * sum(seen.leaving_first)));
    }
}
TEST_CASE("experts that all lie on their rank put nothing on the wire") {
  Travelled seen;
  for (const Left& left : second_step(test::mixture(Watched{router, &seen}), {.degrees = {.data = 4}}, Fp64{}, seen)) CHECK(left == Left{});
}
TEST_CASE("a dry run counts the planned rows shared out evenly, the same each way") {
  Session session = Session::dry(0, 4);
  const Layout layout{.degrees = {.data = 4, .expert = 4}};
  const Mesh mesh{session, layout.degrees};
  Weights weights{mesh, test::mixture(router), layout.recipe()};
  Trainer trainer{weights, AdamW{}, TokenLoss{}, {.micro_batches = 1, .rows = test::length}};
  const Left left = left_of(session.traffic);
  const Extent layers = 2, pairs = 2 * test::length * 3 / 4;
  CHECK(left[Extent(Element::i32)] == layers * 3);
  CHECK(left[Extent(Element::u64)] == layers * pairs);
  CHECK(left[Extent(Element::f64)] == layers * pairs * width * 4);
}

TEST_CASE("a rank holds its part of the experts' weights, gradients and state, and uses the memory that was planned") {
  constexpr Extent hidden = 8, experts = 4, whole = experts * (2 * width * hidden + hidden + width);
  const Sequential model{Named{"e", Embedding{test::vocabulary, test::length, width}},
                         Named{"moe", Residual{LayerNorm{width}, Experts{experts, router, Mlp{width, hidden}}}},
                         Named{"h", Chain{LayerNorm{width}, Head{test::vocabulary, width}}}};
  struct Case {
    Layout layout;
    Extent parts;  // of what an expert rank holds, over the ranks that hold the same experts
  };
  for (const auto& [layout, parts] : {Case{{.degrees = {.data = 4}}, 1}, Case{{.degrees = {.data = 4, .expert = 2}}, 1},
                                      Case{{.degrees = {.data = 4, .expert = 4}}, 1},
                                      Case{{.degrees = {.data = 4, .expert = 2}, .sharding = ZeRO<3>{}}, 2},
                                      Case{{.degrees = {.data = 4, .inner = 4, .expert = 2}, .sharding = MiCS{}}, 2}}) {
    INFO(test::text_of(layout));
    launch_threads(4, [&, &layout = layout, parts = parts](Session& session) {
      const Mesh mesh{session, layout.degrees};
      Weights weights{mesh, model, layout.recipe()};
      Trainer trainer{weights, AdamW{}, TokenLoss{}, {.micro_batches = 1, .rows = test::length}};
      for (Extent step = 0; step < 3; ++step) trainer.step(test::batches_of(layout, mesh, step));
      Extent at_rest = 0, gradients = 0, state = 0;
      for (const Bundle& b : weights.bundles().all())
        if (within(Axes::expert, b.kind.split_over)) {
          at_rest += b.rest.bytes(), gradients += b.reduced.bytes();
          for (const View& moment : b.states) state += moment.bytes();
        }
      const Extent part = whole / layout.degrees.expert / parts * sizeof(double);
      CHECK(at_rest == part);
      CHECK(gradients == part);
      CHECK(state == 2 * part);
      Session plan = Session::dry(session.rank(), 4);
      const Mesh dry_mesh{plan, layout.degrees};
      Weights dry_weights{dry_mesh, model, layout.recipe()};
      const Trainer dry{dry_weights, AdamW{}, TokenLoss{}, {.micro_batches = 1, .rows = test::length}};
      CHECK(session.memory.peaks() == plan.memory.peaks());
    });
  }
}
TEST_CASE("the plan of experts holds all rows that their ranks may send, and no more") {
  const auto bound = [](const Routes& routes, Extent rows, Extent ranks) { return routes.bound_arriving(rows, ranks); };
  CHECK(bound({.experts = 8, .choices = 2, .capacity = 100}, 100, 4) == 4 * 100 * 2);       // both choices of every token here
  CHECK(bound({.experts = 4, .choices = 2, .capacity = 100}, 100, 4) == 4 * 100);           // the one expert here, once a token
  CHECK(bound({.experts = 8, .choices = 2, .capacity = 25}, 100, 4) == 4 * 2 * 25);         // no more than have seats
  CHECK(bound({.experts = 8, .choices = 2, .capacity = 100, .room = 1.5}, 100, 4) == 300);  // half as much again as an even share
  CHECK(bound({.experts = 8, .choices = 2, .capacity = 100, .room = 9}, 100, 4) == 4 * 100 * 2);
  CHECK(bound({.experts = 8, .choices = 2, .capacity = 100}, 100, 1) == Routes{.experts = 8, .choices = 2, .capacity = 100}.bound(100));
}

TEST_CASE("a checkpoint of experts on four ranks goes on on one, on two with ZeRO-3, and back") {
  const auto model = test::mixture(router);
  const Layout four{.degrees = {.data = 4, .expert = 4}, .sharding = ZeRO<1>{}}, one{},
      two{.degrees = {.data = 4, .tensor = 2, .expert = 2}, .sharding = ZeRO<3>{}}, staged{.degrees = {.data = 2, .pipe = 2, .expert = 2}};
  const auto stretch = [&](const Layout& layout, Range steps, const std::filesystem::path& from, const std::filesystem::path& to) {
    test::Tensors tensors;
    launch_threads(layout.degrees.ranks(), [&](Session& session) {
      const Mesh mesh{session, layout.degrees};
      Weights weights{mesh, model, layout.recipe()};
      Trainer trainer{weights, AdamW{.rate = 1e-2, .epsilon = 1e-4}, TokenLoss{}, {.micro_batches = layout.micro_batches(), .rows = test::length}};
      if (!from.empty()) load(from, trainer);
      for (Extent step = steps.begin; step < steps.end; ++step) trainer.step(test::batches_of(layout, mesh, step));
      if (!to.empty()) save(to, trainer);
      test::Tensors mine = test::tensors_of(weights);
      if (session.is_root()) tensors = std::move(mine);
    });
    return tensors;
  };
  const test::TemporaryFolder folder;
  const test::Tensors straight = stretch(one, {0, 6}, {}, {});
  stretch(four, {0, 3}, {}, folder / "four");
  stretch(one, {0, 3}, {}, folder / "one");
  CHECK(test::distance(stretch(one, {3, 6}, folder / "four", {}), straight) <= 1e-12);
  CHECK(test::distance(stretch(two, {3, 6}, folder / "four", {}), straight) <= 1e-12);
  CHECK(test::distance(stretch(four, {3, 6}, folder / "one", {}), straight) <= 1e-12);
  CHECK(test::distance(stretch(staged, {3, 6}, folder / "four", {}), straight) <= 1e-12);
  // On the same layout it is the same, to the last bit.
  const test::Tensors whole = stretch(four, {0, 6}, {}, folder / "whole"), resumed = stretch(four, {3, 6}, folder / "four", folder / "resumed");
  CHECK(test::distance(whole, resumed) == 0);
  for (const char* file : {"weights.safetensors", "state.safetensors"})
    CHECK(read_file(folder / "whole" / file) == read_file(folder / "resumed" / file));
}
