// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every pipeline schedule keeps the laws of its slot, and the laws catch what breaks them.
#include "schedule_laws.hpp"

#include <dsx/pipeline/gpipe.hpp>
#include <dsx/pipeline/interleaved.hpp>
#include <dsx/pipeline/one_forward_one_backward.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

/// The archetype: a program without a slot's name, one micro-batch under way at a time.
struct OneByOne {
  Program program(Extent, Extent, Extent micro_batches) const {
    Program p;
    for (Extent m = 0; m < micro_batches; ++m) p.forward(m), p.backward(m);
    return p;
  }
};
static_assert(PipelineSchedule<OneByOne>);

/// Break the laws, each in its way.
struct Backwards {
  Program program(Extent, Extent, Extent micro_batches) const {
    Program p;
    for (Extent m = 0; m < micro_batches; ++m) p.backward(m), p.forward(m);
    return p;
  }
};
struct Forgetful {
  Program program(Extent, Extent, Extent micro_batches) const {
    Program p;
    for (Extent m = 1; m < micro_batches; ++m) p.forward(m), p.backward(m);
    return p;
  }
};
struct Moody {
  mutable int asked = 0;
  Program program(Extent, Extent stages, Extent micro_batches) const {
    return ++asked % 3 ? GPipe{}.program(0, stages, micro_batches) : OneByOne{}.program(0, stages, micro_batches);
  }
};

}  // namespace

TEST_CASE("SingleStage keeps the laws of schedules on one stage") { laws::schedule(SingleStage{}, 1); }
TEST_CASE("GPipe keeps the laws of schedules") { laws::schedule(GPipe{}, 6); }
TEST_CASE("1F1B keeps the laws of schedules") { laws::schedule(OneForwardOneBackward{}, 6); }
TEST_CASE("interleaved 1F1B keeps the laws of schedules, with groups that don't divide too") {
  laws::schedule(Interleaved<2>{}, 6);
  laws::schedule(Interleaved<3>{}, 5);
  laws::schedule(AnySchedule{Interleaved<2>{}}, 3);
}
TEST_CASE("the archetype of schedules keeps their laws") { laws::schedule(OneByOne{}, 4); }
TEST_CASE("AnySchedule keeps the laws of schedules") {
  laws::schedule(AnySchedule{}, 1);
  laws::schedule(AnySchedule{OneForwardOneBackward{}}, 4);
  CHECK(AnySchedule{GPipe{}}.program(0, 2, 8).live() == 8);
  CHECK(AnySchedule{OneForwardOneBackward{}}.program(0, 2, 8).live() == 2);
}
TEST_CASE("the laws of schedules refuse what breaks them") {
  const auto program = [](std::initializer_list<int> signs) {
    Program p;
    for (const int m : signs) m > 0 ? p.forward(Extent(m - 1)) : p.backward(Extent(-m - 1));
    return p;
  };
  CHECK(laws::plays({program({1, 2, -1, -2}), program({1, 2, -1, -2})}));
  CHECK_FALSE(laws::plays({program({1, 2, -1, -2}), program({2, 1, -1, -2})}));  // overtakes
  CHECK_FALSE(laws::plays({program({1, -1, 2, -2}), program({1, 2, -1, -2})}));  // deadlock
  CHECK_FALSE(laws::plays({program({1, 2, -1, -2}), program({1, -1})}));         // a message that nobody takes
}
TEST_CASE("the laws of schedules catch policies that break them") {
  CHECK(laws::broken([] { laws::schedule(Backwards{}, 2); }) == "deadlock");
  CHECK(laws::broken([] { laws::schedule(Forgetful{}, 2); }) == "a stage doesn't run each micro-batch once forward and once backward");
  CHECK(laws::broken([] { laws::schedule(Moody{}, 1); }) == "another program the second time");
  CHECK(laws::broken([] { laws::schedule(SingleStage{}, 2); }) != "");
}
