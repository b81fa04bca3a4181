// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include "io/io_support.hpp"

#include <dsx/train/feed.hpp>

#include <doctest/doctest.h>

#include <map>
#include <mutex>

using namespace dsx;
using test::error_of, test::TemporaryFolder;

namespace {

TokenFile counting(const TemporaryFolder& folder, int tokens) {
  TokenFileWriter writer{folder / "tokens.bin", 1000};
  for (int i = 0; i < tokens; ++i) writer.append(std::vector{i});
  writer.finish();
  return TokenFile{folder / "tokens.bin"};
}
using StepRows = std::map<RowId, std::pair<int, int>>;  // what stands in a row, and what follows it

/// All rows of a step, put together over the data ranks of a mesh.
StepRows rows_of_step(const TokenFile& tokens, Degrees degrees, Extent micro_batches, Extent step) {
  StepRows all;
  std::mutex mutex;
  launch_threads(degrees.ranks(), [&](Session& session) {
    const Mesh mesh{session, degrees};
    Feed feed{tokens, mesh, {.batch = 8, .context = 5, .micro_batches = micro_batches, .seed = 3}};
    const auto batches = feed.at(step);
    const std::lock_guard lock{mutex};
    CHECK(batches.size() == micro_batches);
    for (const MicroBatch& b : batches) {
      const Batch view = b.view(b.rows());
      CHECK(view.live() == 8 / degrees.data / micro_batches * 5);
      for (Extent i = 0; i < view.live(); ++i) {
        CHECK(view.positions[i] == int(i % 5));
        if (degrees.tensor == 1) CHECK(!all.contains(view.row_ids[i]));
        all[view.row_ids[i]] = {view.ids[i], view.targets[i]};
      }
    }
  });
  return all;
}

}  // namespace

TEST_CASE("a step's sequences depend on its number, not on ranks and micro-batches") {
  const TemporaryFolder folder;
  const TokenFile tokens = counting(folder, 400);
  const StepRows one = rows_of_step(tokens, {}, 1, 7);
  REQUIRE(one.size() == 40);
  for (const auto& [id, row] : one) CHECK(row.second == row.first + 1);
  CHECK(rows_of_step(tokens, {.data = 2}, 2, 7) == one);
  CHECK(rows_of_step(tokens, {.data = 4, .tensor = 2}, 1, 7) == one);
  CHECK(rows_of_step(tokens, {}, 4, 7) == one);
  CHECK(rows_of_step(tokens, {}, 1, 8) != one);
}

TEST_CASE("by grains, micro-batch j of data rank r holds the same sequences on every layout of as many grains") {
  const TemporaryFolder folder;
  const TokenFile tokens = counting(folder, 400);
  const auto first_rows = [&](Extent data) {
    std::vector<RowId> rows(4);  // by grain
    launch_threads(data, [&](Session& session) {
      const Mesh mesh{session, {.data = data}};
      Feed feed{tokens, mesh, {.batch = 8, .context = 5, .micro_batches = 4 / data, .by_grains = true}};
      const auto batches = feed.at(7);
      for (Extent j = 0; j < batches.size(); ++j) rows[j * data + session.rank()] = batches[j].view(10).row_ids[0];
    });
    return rows;
  };
  CHECK(first_rows(1) == std::vector<RowId>{0, 10, 20, 30});
  CHECK(first_rows(2) == first_rows(1));
  CHECK(first_rows(4) == first_rows(1));
}

TEST_CASE("windows in order cover the file once, with empty micro-batches at the end") {
  const TemporaryFolder folder;
  const TokenFile tokens = counting(folder, 66);  // 13 windows of 5
  std::mutex mutex;
  std::vector<int> seen(66), calls(2);
  launch_threads(2, [&](Session& session) {
    const Mesh mesh{session, {.data = 2}};
    Feed feed{tokens, mesh, {.batch = 8, .context = 5, .micro_batches = 2}};
    feed.in_order(0, [&](std::span<const MicroBatch> batches) {
      const std::lock_guard lock{mutex};
      ++calls[session.rank()];
      for (const MicroBatch& b : batches)
        for (const int target : b.view(b.rows()).targets) ++seen[std::size_t(target)];
    });
  });
  CHECK(calls == std::vector{2, 2});
  CHECK(seen[0] == 0);
  for (int i = 1; i < 66; ++i) CHECK(seen[std::size_t(i)] == 1);
}

TEST_CASE("a batch that the ranks can't share is refused with its numbers") {
  Session session = Session::dry(0, 3);
  const Mesh mesh{session, {.data = 3}};
  const auto refused = error_of([&] { rows_of({.batch = 8, .context = 4, .micro_batches = 2}, mesh); });
  CHECK(refused == 308);
  CHECK(refused.says("a batch of 8 sequences can't be shared by 3 data ranks in 2 micro-batches each"));
  CHECK(rows_of({.batch = 12, .context = 4, .micro_batches = 2}, mesh) == 8);
}
