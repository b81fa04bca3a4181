// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Rows of tokens that arrive from several ranks, in the order of this rank's experts. R ranks with E experts in all, L = E / R of them here;
/// N rows at most.
///
///     kernels::arrival_order(counts_E, arriving_RL, sent_R, received_R, places_N1, begin, live);
///     kernels::permute(arrived_NC, places_N1, {rows_NC, false});
///     kernels::arrival_ids(arrived_ids_N1, places_N1, ids_N1);
///
/// Rows arrive rank by rank, from each expert by expert. They lie sorted by expert, then by rank, then as they came.
#pragma once

#include <dsx/core/random.hpp>
#include <dsx/tensor/view.hpp>

namespace dsx::kernels {

/// From what this rank sends to each expert and what each rank sends to its own (i32): rows to and from each rank (u64), the place of each
/// row that arrives (i32), where each expert's rows begin (L + 1 of them, u64), and how many arrive (one i64). dsx-E350 for more than N.
void arrival_order(View counts_E, View arriving_RL, View sent_R, View received_R, View places_N1, View begin, View live);
/// ids[place of row] = its id (u64).
void arrival_ids(View arrived_N1, View places_N1, View ids_N1);

}  // namespace dsx::kernels
