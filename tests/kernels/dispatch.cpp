// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The order of rows that arrive from several ranks.
#include <dsx/core/error.hpp>
#include <dsx/kernels/dispatch.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace dsx;

namespace {

/// Of what `arriving` says, R x L, on a rank that sends `counts`.
struct Order {
  std::vector<Extent> sent, received, begin;
  std::vector<std::int32_t> places;
  std::vector<RowId> ids;  // of rows numbered as they arrive
  std::int64_t live = 0;
};
Order order(std::vector<std::int32_t> counts, std::vector<std::int32_t> arriving, Extent ranks, Extent bound) {
  const Extent here = arriving.size() / ranks;
  Order o{std::vector<Extent>(ranks), std::vector<Extent>(ranks), std::vector<Extent>(here + 1), std::vector<std::int32_t>(bound, -7), {}};
  kernels::arrival_order({counts.data(), {1, counts.size()}, Element::i32}, {arriving.data(), {ranks, here}, Element::i32},
                         {o.sent.data(), {1, ranks}, Element::u64}, {o.received.data(), {1, ranks}, Element::u64},
                         {o.places.data(), {bound, 1}, Element::i32}, {o.begin.data(), {1, here + 1}, Element::u64}, {&o.live, {1, 1}, Element::i64});
  std::vector<RowId> arrived;
  for (std::int64_t i = 0; i < o.live; ++i) arrived.push_back(RowId(100 + i));
  o.ids.resize(arrived.size());
  const Shape each{arrived.size(), 1};
  kernels::arrival_ids({arrived.data(), each, Element::u64}, {o.places.data(), each, Element::i32}, {o.ids.data(), each, Element::u64});
  return o;
}

}  // namespace

TEST_CASE("rows that arrive rank by rank lie expert by expert, and within one by rank, as they came") {
  // From rank 0: 2 for the first expert, 1 for the second; from rank 1: 0 and 3; from rank 2: 1 and 0.
  const Order o = order({5, 0, 2, 1, 0, 4}, {2, 1, 0, 3, 1, 0}, 3, 9);
  CHECK(o.sent == std::vector<Extent>{5, 3, 4});
  CHECK(o.received == std::vector<Extent>{3, 3, 1});
  CHECK(o.begin == std::vector<Extent>{0, 3, 7});
  CHECK(o.live == 7);
  CHECK(o.places == std::vector<std::int32_t>{0, 1, 3, 4, 5, 6, 2, -7, -7});
  CHECK(o.ids == std::vector<RowId>{100, 101, 106, 102, 103, 104, 105});
}
TEST_CASE("nothing may arrive, and nothing leave") {
  const Order none = order({3, 1}, {0, 0}, 2, 0), full = order({0, 0}, {1, 2}, 2, 3);
  CHECK(none.live == 0);
  CHECK(none.begin == std::vector<Extent>{0, 0});
  CHECK(none.sent == std::vector<Extent>{3, 1});
  CHECK(full.live == 3);
  CHECK(full.sent == std::vector<Extent>{0, 0});
  CHECK(full.ids == std::vector<RowId>{100, 101, 102});
}
TEST_CASE("more rows than memory was planned for are refused: dsx-E350") {
  CHECK_THROWS_WITH_AS(order({1, 1, 1, 1}, {4, 0, 3, 2}, 2, 8),
                       "dsx-E350: 9 rows of tokens arrive at the 2 experts of this rank (4 from expert rank 0, 5 from expert rank 1), and memory was "
                       "planned for 8; plan micro-batches of equally many rows on all ranks that share out experts, or give their router more room",
                       Error);
}
