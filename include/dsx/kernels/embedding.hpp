// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Rows of a table by index, and the sums that are their gradient. R rows, V entries, C channels.
///
///     kernels::lookup(ids_R, table_VC, {0, vocabulary}, {y_RC, false});
#pragma once

#include <dsx/tensor/view.hpp>

#include <span>

namespace dsx::kernels {

/// y = or += the rows of a table that holds entries `mine`; other ids give zeros.
void lookup(std::span<const int> ids_R, View table_VC, Range mine, Grad y_RC);
/// dtable = or += sums of dy by id, in row order (so the bits don't depend on threads). Its element may be wider than dy's.
void lookup_pullback(std::span<const int> ids_R, View dy_RC, Range mine, Grad dtable_VC);

}  // namespace dsx::kernels

namespace dsx::reference {

template <class T, class G>
void lookup(std::span<const int> ids_R, const T* table_VC, Range mine, Extent columns, G* y_RC, bool accumulate) {
  for (Extent r = 0; r < ids_R.size(); ++r)
    for (Extent c = 0; c < columns; ++c) {
      const bool here = ids_R[r] >= 0 && mine.contains(Extent(ids_R[r]));
      const double value = here ? double(table_VC[(Extent(ids_R[r]) - mine.begin) * columns + c]) : 0;
      G& to = y_RC[r * columns + c];
      to = G(Wide<G>(accumulate ? double(to) + value : value));
    }
}

template <class T, class G>
void lookup_pullback(std::span<const int> ids_R, const T* dy_RC, Range mine, Extent columns, G* dtable_VC, bool accumulate) {
  for (Extent v = mine.begin; v < mine.end; ++v)
    for (Extent c = 0; c < columns; ++c) {
      G& to = dtable_VC[(v - mine.begin) * columns + c];
      double sum = accumulate ? double(to) : 0;
      for (Extent r = 0; r < ids_R.size(); ++r)
        if (ids_R[r] >= 0 && Extent(ids_R[r]) == v) sum += double(dy_RC[r * columns + c]);
      to = G(Wide<G>(sum));
    }
}

}  // namespace dsx::reference
