// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include "io/io_support.hpp"

#include <dsx/comm/mesh_text.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::error_of;

TEST_CASE("degrees of parallelism are read from text and written back") {
  const Degrees d = parse_degrees("tensor=2,data=4,inner=2,pipe=3,tokens=split");
  CHECK(d.ranks() == 24);
  CHECK(d.inner == 2);
  CHECK(d.token_split);
  CHECK(to_text(d) == "data=4,inner=2,tensor=2,pipe=3,tokens=split");
  CHECK(to_text(parse_degrees("")) == "data=1");
  CHECK(!parse_degrees("tokens=whole").token_split);
}

TEST_CASE("text that isn't a mesh is refused with the word that isn't one") {
  CHECK(error_of([] { parse_degrees("rows=2"); }).says("dsx-E312: the mesh \"rows=2\" has no axis \"rows\""));
  CHECK(error_of([] { parse_degrees("data=2,data=3"); }).says("gives the axis data twice"));
  for (const char* text : {"data=0", "data=", "data", "data=2x", "data=-1", "data=9999999999", "tokens=half", "data=2,,tensor=2"})
    CHECK_MESSAGE(error_of([&] { parse_degrees(text); }) == 312, text);
}
