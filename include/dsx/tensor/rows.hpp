// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Who the rows of a value are. Sequences are ragged and lie end to end, and so do the rows of experts; plans are made at the bound,
/// kernels run on the live rows.
#pragma once

#include <dsx/core/random.hpp>
#include <dsx/core/shape.hpp>

#include <cstdint>
#include <span>

namespace dsx {

/// Sequence s holds rows begin[s] .. begin[s + 1) of a micro-batch.
struct Sequences {
  std::span<const std::uint32_t> begin{};
  Extent count() const { return begin.empty() ? 0 : begin.size() - 1; }
  Range operator[](Extent s) const { return {begin[s], begin[s + 1]}; }
};

struct Rows {
  Extent bound = 0;                       // the most there can be: memory is planned for them
  Extent live = 0;                        // how many there are
  const RowId* ids = nullptr;             // of the live ones; null in a dry run
  const Sequences* sequences = nullptr;   // of the whole micro-batch; null in a dry run
  Extent groups = 1;                      // rows of several experts lie expert by expert
  const Extent* begin = nullptr;          // of the rows of each group, and where the last ends; null in a dry run and where there is one

  std::span<const Extent> bounds() const { return {begin, begin ? groups + 1 : 0}; }
};

}  // namespace dsx
