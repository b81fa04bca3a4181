// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The order of rows that arrive from other ranks, on the host.
#include "support.hpp"

#include <dsx/kernels/dispatch.hpp>

#include <numeric>

namespace dsx::kernels {

void arrival_order(View counts_E, View arriving_RL, View sent_R, View received_R, View places_N1, View begin, View live) {
  on_host("arrival_order", {counts_E, arriving_RL, sent_R, received_R, places_N1, begin, live});
  same_element("arrival_order", counts_E, arriving_RL, places_N1), same_shape("arrival_order", sent_R, received_R);
  const auto [ranks, here] = arriving_RL.shape;
  if (counts_E.size() != ranks * here || sent_R.size() != ranks || begin.size() != here + 1)
    fail<301>("kernels::arrival_order got ", counts_E.size(), " counts, ", ranks, " x ", here, " that arrive, ", sent_R.size(), " ranks and ",
              begin.size(), " beginnings");
  const std::int32_t *counts = counts_E.pointer<std::int32_t>(), *arriving = arriving_RL.pointer<std::int32_t>();
  Extent *sent = sent_R.pointer<Extent>(), *received = received_R.pointer<Extent>(), *first = begin.pointer<Extent>();
  for (Extent r = 0; r < ranks; ++r) {
    sent[r] = std::accumulate(counts + r * here, counts + (r + 1) * here, Extent{0});
    received[r] = std::accumulate(arriving + r * here, arriving + (r + 1) * here, Extent{0});
  }
  const Extent all = std::accumulate(received, received + ranks, Extent{0});
  if (all > places_N1.size()) {
    std::string from;
    for (Extent r = 0; r < ranks; ++r) from += concat(r ? ", " : "", received[r], " from expert rank ", r);
    fail<350>(all, " rows of tokens arrive at the ", here, " experts of this rank (", from, "), and memory was planned for ", places_N1.size(),
              "; plan micro-batches of equally many rows on all ranks that share out experts, or give their router more room");
  }
  first[0] = 0;
  for (Extent e = 0; e < here; ++e) {
    first[e + 1] = first[e];
    for (Extent r = 0; r < ranks; ++r) first[e + 1] += Extent(arriving[r * here + e]);
  }
  // The beginnings serve as cursors, and are put back.
  std::int32_t* place = places_N1.pointer<std::int32_t>();
  for (Extent i = 0; i < ranks * here; ++i)
    for (std::int32_t n = 0; n < arriving[i]; ++n) *place++ = std::int32_t(first[i % here]++);
  for (Extent e = here; e > 0; --e) first[e] = first[e - 1];
  first[0] = 0;
  *live.pointer<std::int64_t>() = std::int64_t(all);
}

void arrival_ids(View arrived_N1, View places_N1, View ids_N1) {
  on_host("arrival_ids", {arrived_N1, places_N1, ids_N1}), same_shape("arrival_ids", arrived_N1, places_N1, ids_N1);
  for (Extent i = 0; i < places_N1.size(); ++i) ids_N1.pointer<RowId>()[places_N1.pointer<std::int32_t>()[i]] = arrived_N1.pointer<RowId>()[i];
}

}  // namespace dsx::kernels
