// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// One micro-batch of a data rank: sequences of any length laid end to end.
///
///     MicroBatch batch;
///     batch.add(ids, targets, first_row);      // targets[i] follows ids[i]; negative: not counted
#pragma once

#include <dsx/core/error.hpp>
#include <dsx/pass/operation.hpp>

#include <vector>

namespace dsx {

class MicroBatch {
 public:
  MicroBatch() : begin_{0} {}

  void clear() { ids_.clear(), targets_.clear(), positions_.clear(), row_ids_.clear(), begin_.assign(1, 0); }
  void reserve(Extent rows, Extent sequences) {
    ids_.reserve(rows), targets_.reserve(rows), positions_.reserve(rows), row_ids_.reserve(rows), begin_.reserve(sequences + 1);
  }
  /// Adds a sequence. `first_row` numbers its first row within the whole step, wherever it is computed: dropout draws by it.
  void add(std::span<const int> ids, std::span<const int> targets, RowId first_row, int first_position = 0) {
    if (ids.size() != targets.size()) fail<304>("a sequence of ", ids.size(), " tokens with ", targets.size(), " targets");
    for (Extent i = 0; i < ids.size(); ++i) {
      ids_.push_back(ids[i]), targets_.push_back(targets[i]);
      positions_.push_back(first_position + int(i)), row_ids_.push_back(first_row + i);
    }
    begin_.push_back(std::uint32_t(ids_.size()));
  }
  Extent rows() const { return ids_.size(); }
  Batch view(Extent bound) const { return {ids_, targets_, positions_, row_ids_, {begin_}, bound}; }

 private:
  std::vector<int> ids_, targets_, positions_;
  std::vector<RowId> row_ids_;
  std::vector<std::uint32_t> begin_;
};

}  // namespace dsx
