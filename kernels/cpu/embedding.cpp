// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Table lookups on the host: rows over threads; for the gradient, columns over threads.
#include "elementwise_tables.hpp"
#include "support.hpp"

#include <dsx/kernels/embedding.hpp>

namespace dsx::kernels {
namespace {

void check(std::string_view kernel, Extent ids, const View& rows_RC, const View& table_VC, Range mine) {
  on_host(kernel, {rows_RC, table_VC});
  if (ids != rows_RC.shape.rows || table_VC.shape.rows != mine.size() || table_VC.shape.columns != rows_RC.shape.columns)
    fail<301>("kernels::", kernel, " got ", ids, " ids, ", rows_RC.shape.rows, " rows of ", rows_RC.shape.columns, " and a table of ",
              table_VC.shape.rows, " x ", table_VC.shape.columns, " for entries ", mine.begin, " to ", mine.end);
}

bool owns(Range mine, int id) { return id >= 0 && mine.contains(Extent(id)); }

}  // namespace

void lookup(std::span<const int> ids_R, View table_VC, Range mine, Grad y_RC) {
  check("lookup", ids_R.size(), y_RC.view, table_VC, mine);
  const Extent columns = table_VC.shape.columns;
  dispatch_grad("lookup", table_VC.element, y_RC.view.element, [&](auto zero, auto grad_zero) {
    using T = decltype(zero);
    using G = decltype(grad_zero);
    const auto& body = pick<ConvertBody<T, G>>();
    in_ranges(ids_R.size(), columns, [&](Range rows) {
      for (Extent r = rows.begin; r < rows.end; ++r) {
        G* const y = y_RC.view.pointer<G>() + r * columns;
        if (owns(mine, ids_R[r]))
          body.convert(table_VC.pointer<T>() + (Extent(ids_R[r]) - mine.begin) * columns, y, columns, y_RC.accumulate);
        else if (!y_RC.accumulate)
          std::memset(static_cast<void*>(y), 0, columns * sizeof(G));
      }
    });
  });
}

void lookup_pullback(std::span<const int> ids_R, View dy_RC, Range mine, Grad dtable_VC) {
  check("lookup_pullback", ids_R.size(), dy_RC, dtable_VC.view, mine);
  if (!dtable_VC.accumulate) zero(dtable_VC.view);
  const Extent rows = ids_R.size(), columns = dy_RC.shape.columns;
  dispatch_grad("lookup_pullback", dy_RC.element, dtable_VC.view.element, [&](auto zero, auto grad_zero) {
    using T = decltype(zero);
    using G = decltype(grad_zero);
    const auto entry = [&](Extent r) { return dtable_VC.view.pointer<G>() + (Extent(ids_R[r]) - mine.begin) * columns; };
    if constexpr (std::is_same_v<G, Wide<T>>) {
      const auto& body = pick<ConvertBody<T, G>>();
      // A thread takes whole columns of all rows, so that an entry's rows are added in their order.
      in_ranges(columns, rows, [&](Range c) {
        for (Extent r = 0; r < rows; ++r)
          if (owns(mine, ids_R[r])) body.convert(dy_RC.pointer<T>() + r * columns + c.begin, entry(r) + c.begin, c.size(), true);
      });
    } else {
      // A narrow sum would be rounded at each addition: an entry's first row adds up all its rows in a wide buffer, and rounds once.
      constexpr Extent at_once = 256;
      const auto& from_entry = pick<ConvertBody<G, Wide<T>>>();
      const auto& from_row = pick<ConvertBody<T, Wide<T>>>();
      const auto& to_entry = pick<ConvertBody<Wide<T>, G>>();
      in_parallel(rows, rows * columns, [&](Extent r) {
        const int id = ids_R[r];
        if (!owns(mine, id) || std::find(ids_R.begin(), ids_R.begin() + std::ptrdiff_t(r), id) != ids_R.begin() + std::ptrdiff_t(r)) return;
        for (Extent begin = 0; begin < columns; begin += at_once) {
          const Extent n = std::min(at_once, columns - begin);
          Wide<T> sums[at_once];
          from_entry.convert(entry(r) + begin, sums, n, false);
          for (Extent same = r; same < rows; ++same)
            if (ids_R[same] == id) from_row.convert(dy_RC.pointer<T>() + same * columns + begin, sums, n, true);
          to_entry.convert(sums, entry(r) + begin, n, false);
        }
      });
    }
  });
}

}  // namespace dsx::kernels
