// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Cross entropy over a vocabulary that is visited chunk by chunk: no buffer ever holds all logits of a row.
///
///     for each chunk: kernels::matmul(hidden, rows of the table, logits); kernels::softmax_chunk(logits, targets, chunk, state, first);
///     kernels::token_loss(state, targets, sum);                                          // log(sum) + top - target's logit
///     for each chunk: kernels::matmul(...); kernels::softmax_chunk_pullback(logits, targets, chunk, state, weight);  // logits -> dlogits
///
/// state_R3, in wide(element): the largest logit so far, the sum of exponentials relative to it, the target's logit (0 if not seen).
/// A negative target isn't counted: its loss and gradients are 0.
#pragma once

#include <dsx/tensor/view.hpp>

#include <algorithm>
#include <cmath>
#include <span>

namespace dsx::kernels {

/// Folds logits of vocabulary entries `chunk` into the state; the first chunk overwrites it. Logits are in wide(element) as well.
void softmax_chunk(View logits_RV, std::span<const int> targets_R, Range chunk, View state_R3, bool first);
/// Rescales the sums of a state to another largest logit, so that states of several ranks can be added up.
void softmax_rescale(View state_R3, View top_R);
/// loss_1, in f64, = the sum over counted targets of log(sum) + top - logit of the target, added up in row order.
void token_loss(View state_R3, std::span<const int> targets_R, View loss_1);
/// logits = weight (softmax - one at the target), in place; 0 in rows without a target.
void softmax_chunk_pullback(View logits_RV, std::span<const int> targets_R, Range chunk, View state_R3, double weight);

}  // namespace dsx::kernels

namespace dsx::reference {

/// The whole row at once: the sum over counted targets of log(sum of exponentials) - logit of the target.
template <class W>
double token_loss(const W* logits_RV, std::span<const int> targets_R, Extent vocabulary) {
  double loss = 0;
  for (Extent r = 0; r < targets_R.size(); ++r) {
    if (targets_R[r] < 0) continue;
    const W* row = logits_RV + r * vocabulary;
    double top = double(row[0]), sum = 0;
    for (Extent v = 0; v < vocabulary; ++v) top = std::max(top, double(row[v]));
    for (Extent v = 0; v < vocabulary; ++v) sum += std::exp(double(row[v]) - top);
    loss += std::log(sum) + top - double(row[targets_R[r]]);
  }
  return loss;
}

/// weight times its gradient.
template <class W>
void token_loss_pullback(const W* logits_RV, std::span<const int> targets_R, Extent vocabulary, double weight, double* dlogits_RV) {
  for (Extent r = 0; r < targets_R.size(); ++r) {
    const W* row = logits_RV + r * vocabulary;
    double top = double(row[0]), sum = 0;
    for (Extent v = 0; v < vocabulary; ++v) top = std::max(top, double(row[v]));
    for (Extent v = 0; v < vocabulary; ++v) sum += std::exp(double(row[v]) - top);
    for (Extent v = 0; v < vocabulary; ++v) {
      const bool counted = targets_R[r] >= 0, target = counted && Extent(targets_R[r]) == v;
      dlogits_RV[r * vocabulary + v] = counted ? weight * (std::exp(double(row[v]) - top) / sum - (target ? 1 : 0)) : 0;
    }
  }
}

}  // namespace dsx::reference
