// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The tree over grains: its shape, its partial sums, what it rounds; gradients that are gathered by ranks and micro-batches as one likes.
#include <dsx/dsx.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

/// The tree over n leaves, written down: "((0+1)+(2+3))+(4+5)". Leaves are numbers into `texts`.
std::string tree_of(Extent n) {
  std::vector<std::string> texts(n);
  std::vector<float> leaves(n);
  for (Extent i = 0; i < n; ++i) texts[i] = concat(i);
  const auto number = [&](const View& v) { return Extent(v.pointer<float>() - leaves.data()); };
  const auto add = [&](const View& from, const View& to) { texts[number(to)] = concat("(", texts[number(to)], "+", texts[number(from)], ")"); };
  TreeSum tree;
  for (Extent i = 0; i < n; ++i) tree.add({&leaves[i], {1, 1}}, add);
  tree.fold(add);
  return texts[number(tree.at(0))];
}
/// The same from its definition.
std::string expected_tree(Extent begin, Extent end) {
  if (end - begin == 1) return concat(begin);
  const Extent middle = begin + std::bit_floor(end - begin - 1);
  return concat("(", expected_tree(begin, middle), "+", expected_tree(middle, end), ")");
}

}  // namespace

TEST_CASE("the tree over n leaves is cut at the largest power of two below n") {
  CHECK(tree_of(1) == "0");
  CHECK(tree_of(4) == "((0+1)+(2+3))");
  CHECK(tree_of(7) == "(((0+1)+(2+3))+((4+5)+6))");
  for (Extent n = 1; n <= 70; ++n) CHECK(tree_of(n) == expected_tree(0, n));
}

TEST_CASE("however grains come, their sum has the same bits, and as many partial sums wait as were said") {
  Session session{self_transport()};
  constexpr Extent size = 37;
  for (const Extent grains : {1, 6, 8, 12, 15, 64}) {
    std::vector<float> all(grains * size), first;
    for (Extent i = 0; i < all.size(); ++i) all[i] = uniform({.seed = 5}, i, 0) - 0.4F;
    for (Extent ranks = 1; ranks <= grains; ++ranks) {
      if (grains % ranks != 0) continue;
      std::vector<float> leaves = all;  // they are used up
      const Extent slots = GrainSum::slots(grains / ranks, ranks);
      std::vector<std::vector<float>> memory(slots, std::vector<float>(size));
      std::vector<View> views;
      for (auto& m : memory) views.push_back({m.data(), {size, 1}});
      GrainSum sum;
      sum.keep(views, grains);
      for (int again = 0; again < 2; ++again) {
        leaves = all;
        sum.begin();
        for (Extent m = 0; m < grains / ranks; ++m) sum.add(session, {leaves.data() + m * ranks * size, {ranks * size, 1}}, false);
        if (first.empty()) first = memory[0];
        CHECK(sum.whole().data == memory[0].data());
        CHECK(memory[0] == first);
      }
    }
  }
  CHECK(GrainSum::slots(1, 7) == 1);
  CHECK(GrainSum::slots(8, 1) == 3);  // of 4, 2 and 1 grains, before the eighth
  CHECK(GrainSum::slots(4, 2) == 2);
  CHECK(GrainSum::slots(3, 3) == 2);
}

TEST_CASE("a tree of bf16 goes on where a sum from left to right stands still") {
  Session session{self_transport()};
  constexpr Extent grains = 1'024;
  std::vector<bf16> ones(grains, bf16(1.0F));
  bf16 by_turns{0.0F};
  for (const bf16 one : ones) by_turns = bf16(float(by_turns) + float(one));
  CHECK(float(by_turns) == 256);
  std::vector<bf16> slots(GrainSum::slots(grains, 1));
  std::vector<View> views;
  for (bf16& slot : slots) views.push_back({&slot, {1, 1}, Element::bf16});
  GrainSum sum;
  sum.keep(views, grains);
  for (bf16& one : ones) sum.add(session, {&one, {1, 1}, Element::bf16}, false);
  CHECK(float(slots[0]) == 1'024);
}
