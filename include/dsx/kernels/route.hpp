// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A router's tables: softmax over experts, each token's best experts, seats where experts have a capacity, weights, auxiliary losses.
/// T tokens, E experts, k choices.
///
///     kernels::softmax(logits_TE, probabilities_TE);
///     kernels::best_experts(logits_TE, wanted_Tk);
///     kernels::seat(wanted_Tk, probabilities_TE, {.capacity = 4}, ids, seated_Tk, counts_E, scratch);
///     kernels::choice_weights(probabilities_TE, seated_Tk, true, weights_Tk);
///
/// Logits, probabilities and weights are in the wide element, choices and counts in i32; Routes::dropped is -1. Bits don't depend on threads.
#pragma once

#include <dsx/core/random.hpp>
#include <dsx/tensor/rows.hpp>
#include <dsx/tensor/view.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace dsx {

/// Who loses a seat where more tokens want an expert than it has: the later token; the later token among second choices, then among first
/// ones (GShard); the less probable token; or a token by lot (DeepSpeed's random token selection). Equal ones: the later token.
enum class Drop : std::uint8_t { by_position, by_choice, by_probability, at_random };

namespace kernels {

struct Seats {
  Extent capacity = 0;  // of each expert
  Drop drop = Drop::by_position;
  RandomKey key{};  // of Drop::at_random: a lot is a function of it, the row's id and the expert
};

void softmax(View logits_TE, View probabilities_TE);
/// dlogits = or += p (dp - sum of p dp).
void softmax_pullback(View probabilities_TE, View dprobabilities_TE, Grad dlogits_TE);

/// The k experts with the largest logits, the largest first; of equal ones the lower number. A row whose logits are no distribution (a NaN,
/// +infinity, nothing but -infinity) wants nothing: -1.
void best_experts(View logits_TE, View wanted_Tk);
/// What is wanted and has a seat, and how many seats of each expert are taken. A row that wants nothing is a mistake: of the first such
/// row r, -1 - r stands in counts[0].
void seat(View wanted_Tk, View probabilities_TE, const Seats& seats, const RowId* ids_T, View seated_Tk, View counts_E, View scratch);
Extent seat_scratch(Shape wanted_Tk, Extent experts);

/// Probabilities of the seated choices, divided by their sum in the row if `renormalised`; 0 where there is no seat.
void choice_weights(View probabilities_TE, View seated_Tk, bool renormalised, View weights_Tk);
void choice_weights_pullback(View probabilities_TE, View seated_Tk, bool renormalised, View dweights_Tk, Grad dprobabilities_TE);

/// Over which rows a fraction of choices is taken: all of them, or each sequence's. `first`: the number in the micro-batch of the first row.
struct BalanceOver {
  Sequences sequences{};  // none: all rows together
  Extent first = 0;
  Extent choices = 1;  // of each row that count: the first ones
  View counts{};       // f64, of choices by expert and of rows, among more rows than these; none: among these
};
/// How many of the rows' first choices fell on each expert, and how many rows there are: E + 1 numbers in f64.
void count_choices(View wanted_Tk, Extent choices, View counts);
/// loss_1, in f64, = the sum over rows and experts of E / choices x probability x the fraction of the rows' (of its sequence) choices that
/// fell on the expert: a mean over rows is Switch's loss, 1 for a router without preference.
void balance_loss(View probabilities_TE, View wanted_Tk, const BalanceOver& over, View loss_1, View fractions_E);
/// dprobabilities = or += weight times its gradient; fractions have none. `fractions`: E doubles of scratch.
void balance_loss_pullback(View probabilities_TE, View wanted_Tk, const BalanceOver& over, double weight, Grad dprobabilities_TE, View fractions_E);
/// loss_1, in f64, = the sum over rows of log(sum of exponentials) squared.
void z_loss(View logits_TE, View loss_1);
void z_loss_pullback(View logits_TE, double weight, Grad dlogits_TE);

}  // namespace kernels
}  // namespace dsx

namespace dsx::reference {

/// Row by row, in double.
template <class W>
std::vector<double> softmax(const W* logits_TE, Extent tokens, Extent experts) {
  std::vector<double> p(tokens * experts);
  for (Extent t = 0; t < tokens; ++t) {
    const W* row = logits_TE + t * experts;
    const double top = double(*std::max_element(row, row + experts));
    double sum = 0;
    for (Extent e = 0; e < experts; ++e) sum += p[t * experts + e] = std::exp(double(row[e]) - top);
    for (Extent e = 0; e < experts; ++e) p[t * experts + e] /= sum;
  }
  return p;
}

/// By sorting each row.
template <class W>
std::vector<std::int32_t> best_experts(const W* logits_TE, Extent tokens, Extent experts, Extent choices) {
  std::vector<std::int32_t> wanted, order(experts);
  for (Extent t = 0; t < tokens; ++t) {
    std::iota(order.begin(), order.end(), 0);
    const W* row = logits_TE + t * experts;
    std::sort(order.begin(), order.end(), [&](int a, int b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
    wanted.insert(wanted.end(), order.begin(), order.begin() + std::ptrdiff_t(choices));
  }
  return wanted;
}

/// Expert by expert: its candidates sorted from the best to the worst, the first `capacity` seated.
template <class W>
std::vector<std::int32_t> seat(const std::vector<std::int32_t>& wanted_Tk, const W* probabilities_TE, Extent experts, Extent choices,
                               const kernels::Seats& seats, const RowId* ids_T) {
  std::vector<std::int32_t> seated(wanted_Tk.size(), -1);
  for (Extent e = 0; e < experts; ++e) {
    std::vector<Extent> candidates;  // t k + i
    for (Extent n = 0; n < wanted_Tk.size(); ++n)
      if (wanted_Tk[n] == std::int32_t(e)) candidates.push_back(n);
    const auto merit = [&](Extent n) -> double {
      switch (seats.drop) {
        case Drop::by_choice:
          return -double(n % choices);
        case Drop::by_probability:
          return double(probabilities_TE[n / choices * experts + e]);
        case Drop::at_random:
          return double(uniform(seats.key, ids_T[n / choices], std::uint32_t(e)));
        case Drop::by_position:
          break;
      }
      return 0;
    };
    std::sort(candidates.begin(), candidates.end(), [&](Extent a, Extent b) { return merit(a) != merit(b) ? merit(a) > merit(b) : a < b; });
    for (Extent c = 0; c < std::min(candidates.size(), seats.capacity); ++c) seated[candidates[c]] = std::int32_t(e);
  }
  return seated;
}

}  // namespace dsx::reference
