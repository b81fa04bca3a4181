// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Rows in the order of their experts, and back: one pass over memory each way. T tokens, k choices, N rows of experts, C channels.
///
///     kernels::expert_order(chosen_Tk, counts_E, ids, places_Tk, begin, expert_ids, live);
///     kernels::permute(x_TC, places_Tk, {rows_NC, false});                 // rows[place of (t, i)] = x[t]
///     kernels::combine(rows_NC, weights_Tk, places_Tk, y_TC);              // y[t] = sum over i of weight x rows[place of (t, i)]
///
/// Rows of experts lie sorted by expert, then by token. A place is an i32, negative where a choice was dropped; each row has one place.
#pragma once

#include <dsx/core/random.hpp>
#include <dsx/tensor/view.hpp>

namespace dsx::kernels {

/// Choices of a token that the kernels below take at most.
inline constexpr Extent most_choices = 64;

/// From chosen experts and their counts: each choice's place, where each expert's rows begin (E + 1 of them, u64), the id of each row
/// (u64: the token's id times k, plus the choice), and how many rows there are (one i64). Where a negative count tells of a row that has
/// no numbers (kernels::seat), that count stands for the number of rows, and no row has a place.
void expert_order(View chosen_Tk, View counts_E, const RowId* ids_T, View places_Tk, View begin, View ids_N, View live);

/// rows = or += x, each token's row to the places of its choices.
void permute(View x_TC, View places_Tk, Grad rows_NC);
/// dx = or += the sums of drows over a token's places.
void permute_pullback(View drows_NC, View places_Tk, Grad dx_TC);
/// y = the sums of weights times rows over a token's places. Weights are in the wide element.
void combine(View rows_NC, View weights_Tk, View places_Tk, View y_TC);
/// drows = or += weight dy, and dweights = or += the products of rows and dy.
void combine_pullback(View rows_NC, View weights_Tk, View places_Tk, View dy_TC, Grad drows_NC, Grad dweights_Tk);

/// y = or += the sum over columns j of factors_j x_j in each row: two values weighed token by token. Factors are in the wide element.
void weigh(View a_TC, View b_TC, View factors_T2, View y_TC);
/// da, db = or += factors dy; dfactors = or += the products of a and b with dy.
void weigh_pullback(View a_TC, View b_TC, View factors_T2, View dy_TC, Grad da_TC, Grad db_TC, Grad dfactors_T2);

}  // namespace dsx::kernels

namespace dsx::reference {

template <class T>
void combine(const T* rows_NC, const Wide<T>* weights_Tk, const std::int32_t* places_Tk, Extent tokens, Extent choices, Extent columns, T* y_TC) {
  for (Extent t = 0; t < tokens; ++t)
    for (Extent c = 0; c < columns; ++c) {
      double sum = 0;
      for (Extent i = t * choices; i < (t + 1) * choices; ++i)
        if (places_Tk[i] >= 0) sum += double(weights_Tk[i]) * double(rows_NC[Extent(places_Tk[i]) * columns + c]);
      y_TC[t * columns + c] = T(Wide<T>(sum));
    }
}

}  // namespace dsx::reference
