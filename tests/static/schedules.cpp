// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every schedule of dsx over a grid of stages and micro-batches, in the compiler. The trainer asks the same checker again.
#include <dsx/pipeline/gpipe.hpp>
#include <dsx/pipeline/interleaved.hpp>
#include <dsx/pipeline/one_forward_one_backward.hpp>

#include <doctest/doctest.h>

#include <string>
#include <utility>

using namespace dsx;

namespace {

/// 1 to 9, then 16, 23, 30 micro-batches: the whole grid is more than a compiler evaluates.
template <class Schedule>
constexpr bool correct(Extent stages) {
  for (Extent m = 1; m <= 30; m += m < 9 ? 1 : 7)
    if (!check(Schedule{}, stages, m).correct()) return false;
  return true;
}
/// Each number of stages is a constant expression of its own: the budget holds for one.
template <class Schedule, Extent... S>
constexpr bool all(std::integer_sequence<Extent, S...>) {
  constexpr bool each[]{std::bool_constant<correct<Schedule>(S + 1)>::value...};
  return std::find(std::begin(each), std::end(each), false) == std::end(each);
}
using Stages = std::make_integer_sequence<Extent, 8>;
static_assert(all<OneForwardOneBackward>(Stages{}));
static_assert(all<GPipe>(Stages{}));
static_assert(all<Interleaved<2>>(std::make_integer_sequence<Extent, 4>{}));  // the others at run time: twice the instructions
static_assert(correct<SingleStage>(1) && !correct<SingleStage>(2));

// What is under way at once, and the bubble: 2 (stages - 1) ticks a stage.
static_assert(check(OneForwardOneBackward{}, 4, 16).live == 4 && check(GPipe{}, 4, 16).live == 16);
static_assert(check(OneForwardOneBackward{}, 4, 16).idle == 4 * 2 * 3 && check(GPipe{}, 4, 16).idle == 4 * 2 * 3);
static_assert(check(OneForwardOneBackward{}, 4, 16).ticks == 2 * 16 + 2 * 3);
// As many ticks are idle with two chunks, and each is half as long; that costs almost a stage's more under way.
static_assert(check(Interleaved<2>{}, 4, 16).idle == 4 * 2 * 3 && check(Interleaved<2>{}, 4, 16).ticks == 2 * 2 * 16 + 2 * 3);
static_assert(check(Interleaved<2>{}, 4, 16).live == 11);

/// Backward before forward.
struct Hasty {
  constexpr Program program(Extent, Extent, Extent micro_batches) const {
    Program p;
    for (Extent m = 0; m < micro_batches; ++m) p.backward(m), p.forward(m);
    return p;
  }
};
/// A stage that answers in another order than it is asked.
struct Overtaking {
  constexpr Program program(Extent stage, Extent, Extent micro_batches) const {
    Program p;
    for (Extent m = 0; m < micro_batches; ++m) p.forward(stage == 1 ? micro_batches - 1 - m : m);
    for (Extent m = 0; m < micro_batches; ++m) p.backward(m);
    return p;
  }
};
/// Chunks in the wrong order.
struct Upside {
  constexpr Extent chunks(Extent) const { return 2; }
  constexpr Program program(Extent, Extent, Extent micro_batches) const {
    Program p;
    for (const Extent chunk : {1, 0})
      for (Extent m = 0; m < micro_batches; ++m) p.forward(m, chunk);
    for (const Extent chunk : {1, 0})
      for (Extent m = 0; m < micro_batches; ++m) p.backward(m, chunk);
    return p;
  }
};
/// A chunk that no stage has.
struct Overreaching : Interleaved<2> {
  constexpr Extent chunks(Extent) const { return 1; }
  constexpr Program program(Extent, Extent, Extent micro_batches) const {
    Program p;
    for (Extent m = 0; m < micro_batches; ++m) p.forward(m, 1), p.backward(m, 1);
    return p;
  }
};
/// The last micro-batch never comes back.
struct Forgetful {
  constexpr Program program(Extent, Extent, Extent micro_batches) const {
    Program p = GPipe{}.program(0, 1, micro_batches);
    p.instructions.pop_back();
    return p;
  }
};
static_assert(!check(Hasty{}, 1, 1).correct() && !check(Hasty{}, 2, 2).correct());
static_assert(check(Overtaking{}, 2, 1).correct() && !check(Overtaking{}, 2, 2).correct());
static_assert(!check(Forgetful{}, 2, 2).correct());
static_assert(!check(Upside{}, 2, 2).correct() && !check(Overreaching{}, 2, 2).correct());

}  // namespace

TEST_CASE("what the compiler refuses of schedules, it refuses for these reasons") {
  CHECK(std::string{check(Hasty{}, 2, 2).why} == "deadlock");
  CHECK(std::string{check(Upside{}, 2, 2).why} == "deadlock");
  CHECK(std::string{check(Overreaching{}, 2, 2).why} == "a stage runs a chunk that it doesn't have");
  CHECK(std::string{check(Overtaking{}, 2, 2).why} == "messages overtake each other");
  CHECK(std::string{check(Forgetful{}, 2, 2).why} == "a stage doesn't run each micro-batch once forward and once backward");
  CHECK(std::string{check(SingleStage{}, 2, 2).why} == "a stage doesn't run each micro-batch once forward and once backward");
}

TEST_CASE("schedules hold over the whole grid at run time") {
  for (Extent stages = 1; stages <= 12; ++stages)
    for (Extent m = 1; m <= 40; ++m) {
      CHECK(check(OneForwardOneBackward{}, stages, m).correct());
      CHECK(check(GPipe{}, stages, m).correct());
      CHECK(check(Interleaved<2>{}, stages, m).correct());
      CHECK(check(Interleaved<3>{}, stages, m).correct());
      CHECK(check(OneForwardOneBackward{}, stages, m).live == std::min(stages, m));
    }
}
