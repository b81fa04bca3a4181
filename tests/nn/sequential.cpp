// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Paths, slots and the walk over a part of the units.
#include <dsx/nn/block.hpp>
#include <dsx/nn/embedding.hpp>
#include <dsx/nn/sequential.hpp>

#include <doctest/doctest.h>

#include <map>
#include <vector>

using namespace dsx;

namespace {

/// Every parameter and buffer of a model by its path, with its slot.
struct Declared {
  std::vector<std::string> paths{};
  std::map<std::string, Slot> slots{};
  std::vector<Unit> units{};
};
template <class Model>
Declared declared(const Model& model) {
  Declared all;
  model.each_unit([&](const std::string& name, const auto& layer, Unit unit) {
    all.units.push_back(unit);
    const auto note = [&](const std::string& path, const auto& part) { all.paths.push_back(path), all.slots[path] = part.slot; };
    each_part(name, layer, note);
  });
  return all;
}

struct Counted {
  Buffer seen{.size = 3}, largest{.size = 1, .merge = Buffer::Merge::max};
  Parameter factor{vector_parameter(2)};
  void parts(auto& visit) const { visit("seen", seen), visit("factor", factor), visit("largest", largest); }
};
/// A layer that is nothing but others, and passes their names through.
struct Wrapped {
  LayerNorm norm{4};
  Counted counted{};
  void parts(auto& visit) const { visit("", norm), visit("counted", counted); }
};

/// A flow that counts what it went through.
struct Way {
  int sum = 0, units = 0;
  void values(auto&&) {}
};
struct Plus {
  int by = 1;
  void parts(auto&) const {}
  Way operator()(Way w) const { return {w.sum + by, w.units + 1}; }
};
struct Diary {
  std::vector<std::string> lines{};
  Way arrived{};
  void enter(Way& w) { lines.push_back("enter"), w = arrived; }
  void leave(Way& w) { lines.push_back("leave with " + std::to_string(w.sum)), arrived = w; }
  Way unit(const auto& layer, Unit unit, Way w, auto last) {
    lines.push_back(std::to_string(unit) + (last ? " last" : ""));
    return arrived = layer(w);
  }
};

}  // namespace

TEST_CASE("named layers give paths, unnamed ones their number") {
  const Declared all = declared(Sequential{Named{"embedding", Embedding{8, 4, 6}}, Repeat{2, Residual{LayerNorm{6}, Named{"mlp", Mlp{6, 12}}}},
                                           Named{"final", Chain{LayerNorm{6}, Named{"head", Head{8, 6}}}}});
  const std::vector<std::string> expected{"embedding.tokens",  "embedding.positions", "1.0.0.gain",          "1.0.0.bias",        "1.0.mlp.up.weight",
                                          "1.0.mlp.up.bias",   "1.0.mlp.down.weight", "1.0.mlp.down_bias",   "1.1.0.gain",        "1.1.0.bias",
                                          "1.1.mlp.up.weight", "1.1.mlp.up.bias",     "1.1.mlp.down.weight", "1.1.mlp.down_bias", "final.0.gain",
                                          "final.0.bias",      "final.head.table"};
  CHECK(all.paths == expected);
  CHECK(all.units == std::vector<Unit>{0, 1, 2, 3});
}

TEST_CASE("slots count from 0 in each unit, parameters and buffers apart") {
  const Declared all = declared(Sequential{Named{"a", Wrapped{}}, Named{"b", Chain{Counted{}, Counted{}}}});
  CHECK(all.paths == std::vector<std::string>{"a.gain", "a.bias", "a.counted.seen", "a.counted.factor", "a.counted.largest",
                                              "b.0.seen", "b.0.factor", "b.0.largest", "b.1.seen", "b.1.factor", "b.1.largest"});
  CHECK(all.slots.at("a.gain") == 0);
  CHECK(all.slots.at("a.bias") == 1);
  CHECK(all.slots.at("a.counted.factor") == 2);
  CHECK(all.slots.at("a.counted.seen") == 0);
  CHECK(all.slots.at("a.counted.largest") == 1);
  CHECK(all.slots.at("b.1.factor") == 1);
  CHECK(all.slots.at("b.1.largest") == 3);
}

TEST_CASE("a copy of a model keeps its slots and is its own") {
  const Sequential model{Named{"a", Wrapped{}}};
  const auto copy = model;
  CHECK(declared(copy).slots == declared(model).slots);
  CHECK(model.size() == 1);
}

TEST_CASE("a walk over all units is the fold of the layers, and only the last unit is last") {
  const Sequential model{Plus{1}, Repeat{3, Plus{10}}, Plus{100}, Plus{1000}};
  CHECK(model.size() == 6);
  Diary diary;
  model.walk({0, 6}, Way{}, diary);
  CHECK(diary.lines == std::vector<std::string>{"0", "1", "2", "3", "4", "5 last"});
  CHECK(diary.arrived.sum == 1131);
  CHECK(diary.arrived.units == 6);
}

TEST_CASE("walks over parts hand the flow over where they are cut, inside a Repeat too") {
  const Sequential model{Plus{1}, Named{"blocks", Repeat{3, Plus{10}}}, Plus{100}, Plus{1000}};
  for (Extent first = 1; first < 6; ++first)
    for (Extent second = first; second < 6; ++second) {
      Diary diary;
      model.walk({0, first}, Way{}, diary);
      CHECK(diary.lines.back() == "leave with " + std::to_string(diary.arrived.sum));
      if (second > first) {
        diary.lines.clear();
        model.walk({first, second}, Way{}, diary);
        CHECK(diary.lines.size() == second - first + 2);
        CHECK(diary.lines.front() == "enter");
        CHECK(diary.lines[1] == std::to_string(first));
        CHECK(diary.lines.back().starts_with("leave"));
      }
      diary.lines.clear();
      model.walk({second, 6}, Way{}, diary);
      CHECK(diary.lines.front() == "enter");
      CHECK(diary.lines.back() == "5 last");
      CHECK(diary.arrived.sum == 1131);
      CHECK(diary.arrived.units == 6);
    }
}

TEST_CASE("a Repeat of no units is skipped") {
  const Sequential model{Plus{1}, Repeat{0, Plus{10}}, Plus{100}};
  Diary diary;
  model.walk({0, 2}, Way{}, diary);
  CHECK(diary.arrived.sum == 101);
  CHECK(declared(model).units == std::vector<Unit>{0, 1});
}

TEST_CASE("a chain runs its layers in order") {
  CHECK(Chain{Plus{1}, Named{"two", Plus{2}}, Plus{3}}(Way{}).sum == 6);
  CHECK(Chain{}(Way{7, 0}).sum == 7);
}

TEST_CASE("the parts of a cut parameter cover the whole once, in pieces and by grains") {
  for (const auto& [shape, split] : {std::pair<Shape, Split>{{5, 36}, {Cut::columns, 3, 3}},
                                     {{12, 5}, {Cut::rows, 1, 4}},
                                     {{7, 3}, {Cut::rows}},
                                     {{3, 8}, {Cut::columns, 2, 1}},
                                     {{2, 60}, {.cut = Cut::columns, .pieces = 3, .grain = 4, .lead = 3}},
                                     {{3, 8}, {}}})
    for (Extent ranks = 1; ranks <= 3; ++ranks) {
      Parameter p;
      p.shape = shape, p.split = split;
      std::vector<int> covered(shape.size());
      Extent size = 0;
      for (Rank r = 0; r < ranks; ++r) {
        const LocalPart part{p, ranks, r};
        size += part.local.size();
        for (Extent i = 0; i < part.local.size(); ++i) ++covered[part.whole_index(i)];
      }
      const int copies = split.cut == Cut::none ? int(ranks) : 1;
      CHECK(size == shape.size() * Extent(copies));
      CHECK(std::all_of(covered.begin(), covered.end(), [&](int n) { return n == copies; }));
    }
}

TEST_CASE("the parts of stacked matrices cover the whole once, over the expert and the tensor axis") {
  for (const Split split : {Split{}, Split{Cut::columns, 3, 2}, Split{Cut::rows}})
    for (const Extent experts : {Extent{1}, Extent{2}, Extent{4}})
      for (const Extent tensor : {Extent{1}, Extent{2}}) {
        Parameter p;
        p.shape = {4, 12}, p.split = split, p.stack = 4;
        CHECK(p.whole() == Shape{16, 12});
        std::vector<int> covered(p.whole().size());
        for (Rank e = 0; e < experts; ++e)
          for (Rank t = 0; t < tensor; ++t) {
            const LocalPart part{p, tensor, t, experts, e};
            CHECK(part.stack == Range{e * 4 / experts, (e + 1) * 4 / experts});
            for (Extent i = 0; i < part.local.size(); ++i) {
              ++covered[part.whole_index(i)];
              CHECK(part.stack.contains(part.whole_index(i) / p.shape.size()));
            }
          }
        const int copies = split.cut == Cut::none ? int(tensor) : 1;
        CHECK(std::all_of(covered.begin(), covered.end(), [&](int n) { return n == copies; }));
      }
}

TEST_CASE("experts that the expert axis can't share out evenly are refused: dsx-E314") {
  Parameter p;
  p.shape = {4, 12}, p.stack = 6;
  CHECK_THROWS_WITH_AS((LocalPart{p, 1, 0, 4, 0}), "dsx-E314: 6 experts can't be shared out evenly over 4 ranks along expert", Error);
}

TEST_CASE("a first piece that is wider is shared out in the same units as the others") {
  // Four query heads, two keys, two values, each of one column: a rank has a key, its value and the two queries that share them.
  Parameter p;
  p.shape = {1, 8}, p.split = {.cut = Cut::columns, .pieces = 3, .lead = 2};
  for (Rank rank = 0; rank < 2; ++rank) {
    const LocalPart part{p, 2, rank};
    std::vector<Extent> mine;
    for (Extent i = 0; i < part.local.size(); ++i) mine.push_back(part.whole_index(i));
    CHECK(mine == (rank == 0 ? std::vector<Extent>{0, 1, 4, 6} : std::vector<Extent>{2, 3, 5, 7}));
  }
  CHECK(p.split.piece(8, 0) == Range{0, 4});
  CHECK(p.split.piece(8, 1) == Range{4, 6});
  CHECK(p.split.piece(8, 2) == Range{6, 8});
}

TEST_CASE("a parameter that its axis can't cut is refused: dsx-E313") {
  const auto part = [](Shape shape, Split split, Extent ranks) {
    Parameter p;
    p.shape = shape, p.split = split;
    return LocalPart{p, ranks, 0};
  };
  CHECK_THROWS_WITH_AS(part({4, 10}, {Cut::columns, 3, 1}, 1),
                       "dsx-E313: 10 columns in 3 pieces by grains of 1 can't be cut for 1 ranks along tensor", Error);
  CHECK_THROWS_WITH_AS(part({4, 10}, {.cut = Cut::columns, .pieces = 3, .lead = 2}, 1),
                       "dsx-E313: 10 columns in 3 pieces (the first 2 times as wide) by grains of 1 can't be cut for 1 ranks along tensor", Error);
  CHECK_THROWS_WITH_AS(part({4, 10}, {Cut::rows}, 5), "dsx-E313: 4 rows in 1 pieces by grains of 1 can't be cut for 5 ranks along tensor", Error);
}
