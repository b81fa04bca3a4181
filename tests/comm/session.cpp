// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Sessions by place: the CPU's, and what a program is told that asks for a GPU where there is none.
///
///     Session{self_transport(), Place::cuda};   // dsx-E801 or dsx-E805
#include <dsx/comm/session.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

template <class F>
int number_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.number();
  }
  return 0;
}

}  // namespace

TEST_CASE("a session over a GPU that isn't there is one numbered error, and a dry one is none") {
  {
    Session session = Session::dry(3, 8, Place::cuda);
    CHECK(session.place() == Place::cuda);
    const View v = session.memory.keep(Category::weights, {3, 1}, Element::f32);
    CHECK(v.place == Place::cuda);
    CHECK(v.data == nullptr);
    CHECK(session.memory.tally(Category::weights).now == alignment_at(Place::cuda));
    bool called = false;
    session.launch([&](View) { called = true; }, v);
    session.read(v, [&](View) { called = true; });
    session.edit(v, [&](View) { called = true; });
    CHECK_FALSE(called);
  }
  if (cuda_device_count() > 0) return;
  const int number = number_of([] { Session{self_transport(), Place::cuda}; });
  CHECK((number == 801 || number == 805));
  CHECK_THROWS_WITH_AS((Session{self_transport(), Place::cuda}), doctest::Contains(number == 801 ? "-DDSX_ENABLE_CUDA=ON" : "no GPU on this machine"),
                       Error);
  CHECK(number_of([] { launch_threads(2, [](Session& s) { Session{s.world(), Place::cuda}; }); }) == number);
  CHECK(launch(0, nullptr, {.ranks = 2, .place = Place::cuda}, [](Session&) { FAIL("a session over a GPU began"); }) == 1);
}

TEST_CASE("memory that a session can't have is refused with its size, and its arenas can be asked again") {
  Session session{self_transport()};
  constexpr Extent too_much = Extent{1} << 60;
  CHECK_THROWS_WITH_AS(session.memory.keep(Category::weights, {too_much / 4, 1}, Element::f32), doctest::Contains(concat(too_much).c_str()), Error);
  CHECK(number_of([&] { session.memory.keep(Category::weights, {too_much / 4, 1}, Element::f32); }) == 803);
  session.memory.scratch.reserve(1'024), session.memory.carried.reserve(1'024);
  CHECK(number_of([&] { session.memory.scratch.reserve(too_much); }) == 803);
  CHECK(number_of([&] { session.memory.carried.reserve(too_much); }) == 803);
  session.memory.scratch.reserve(1'024), session.memory.carried.reserve(1'024);
  CHECK(session.memory.scratch.take({4, 4}, Element::f32).data != nullptr);
  CHECK(session.memory.carried.take({4, 4}, Element::f32).data != nullptr);
}

TEST_CASE("a session on the CPU reads and edits buffers where they lie") {
  Session session{self_transport()};
  const View v = session.memory.keep(Category::weights, {2, 2}, Element::f32);
  session.edit(v, [](View here) { here.at<float>(1, 1) = 5; });
  const void* seen = nullptr;
  session.read(v, [&](View here) { seen = here.data; });
  CHECK(seen == v.data);
  CHECK(v.as<float>()[3] == 5);
  CHECK(session.compute().handle() == nullptr);
}
