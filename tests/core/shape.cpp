// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include <dsx/core/axes.hpp>
#include <dsx/core/shape.hpp>

#include <doctest/doctest.h>

using namespace dsx;

TEST_CASE("shares lie end to end, cover the range once, and the first are one longer") {
  for (const Extent begin : {Extent(0), Extent(5)})
    for (Extent size = 0; size < 40; ++size)
      for (Extent parts = 1; parts < 12; ++parts) {
        const Range whole{begin, begin + size};
        Extent at = begin, before = Extent(-1);
        for (Extent i = 0; i < parts; ++i) {
          const Range mine = share(whole, parts, i);
          REQUIRE(mine.begin == at);
          REQUIRE((mine.size() == size / parts || mine.size() == size / parts + 1));
          REQUIRE(mine.size() <= before);
          at = mine.end, before = mine.size();
        }
        REQUIRE(at == whole.end);
      }
  static_assert(share({0, 10}, 4, 1) == Range{3, 6});
}

TEST_CASE("a share of a share over more ranks lies within the share over fewer") {
  for (Extent i = 0; i < 6; ++i) {
    const Range coarse = share({0, 24}, 2, i / 3), fine = share({0, 24}, 6, i);
    CHECK(overlap(coarse, fine) == fine);
  }
}

TEST_CASE("ranges overlap where both are") {
  CHECK(overlap({0, 5}, {3, 9}) == Range{3, 5});
  CHECK(overlap({3, 9}, {0, 5}) == Range{3, 5});
  CHECK(overlap({0, 9}, {3, 5}) == Range{3, 5});
  CHECK(overlap({0, 3}, {5, 9}).size() == 0);
  CHECK(overlap({5, 9}, {0, 3}).size() == 0);
  CHECK(Range{2, 4}.contains(2));
  CHECK_FALSE(Range{2, 4}.contains(4));
}

TEST_CASE("sizes round up and literals count bytes") {
  CHECK(round_up(0, 8) == 0);
  CHECK(round_up(1, 8) == 8);
  CHECK(round_up(16, 8) == 16);
  CHECK(round_up(17, 6) == 18);
  CHECK(3_KiB == 3 * 1024);
  CHECK(64_MiB == 64 * 1024 * 1024);
  CHECK(2_GiB == 2147483648);
  CHECK(Shape{3, 4}.size() == 12);
  CHECK(Shape{3, 4} != Shape{4, 3});
}

TEST_CASE("axes are a set") {
  CHECK(within(Axes::inner, Axes::data));
  CHECK(within(Axes::none, Axes::pipe));
  CHECK_FALSE(within(Axes::data, Axes::inner));
  CHECK((Axes::inner | Axes::outer) == Axes::data);
  CHECK(((Axes::data | Axes::tensor) - Axes::outer) == (Axes::inner | Axes::tensor));
  CHECK((Axes::data & (Axes::inner | Axes::pipe)) == Axes::inner);
  CHECK_FALSE(any(Axes::none));
  CHECK(to_text(Axes::none) == "none");
  CHECK(to_text(Axes::data | Axes::tensor) == "data+tensor");
  CHECK(to_text(Axes::inner | Axes::pipe) == "inner+pipe");
  CHECK(to_text(Axes::sequence | Axes::expert | Axes::expert_data) == "sequence+expert+expert_data");
  CHECK((Axes::expert_inner | Axes::expert_outer) == Axes::expert_data);
  CHECK(to_text(Axes::tensor | Axes::expert_inner) == "tensor+expert_inner");
}
