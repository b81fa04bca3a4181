// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The token loss on the host: rows over threads.
#include "support.hpp"
#include "token_loss_body.hpp"

#include <dsx/kernels/token_loss.hpp>

#include <cmath>

namespace dsx::kernels {
namespace {

/// f(W{}) for the wide element that logits and states share.
template <class F>
void dispatch_wide(std::string_view kernel, const View& a, const View& b, F&& f) {
  on_host(kernel, {a, b});
  same_element(kernel, a, b);
  if (a.element == Element::f32) return f(float{});
  if (a.element == Element::f64) return f(double{});
  fail<405>("kernels::", kernel, " sums f32 or f64 logits, not ", name_of(a.element));
}

void check(std::string_view kernel, const View& state_R3, Extent rows, Extent targets) {
  if (state_R3.size() != 3 * rows || targets != rows)
    fail<301>("kernels::", kernel, " got ", rows, " rows, ", targets, " targets and a state of ", state_R3.size(), " numbers");
}

void check_chunk(std::string_view kernel, const View& logits_RV, Range chunk) {
  if (chunk.size() != logits_RV.shape.columns)
    fail<301>("kernels::", kernel, " got ", logits_RV.shape.columns, " logits for entries ", chunk.begin, " to ", chunk.end);
}

}  // namespace

void softmax_chunk(View logits_RV, std::span<const int> targets_R, Range chunk, View state_R3, bool first) {
  const Extent rows = logits_RV.shape.rows, columns = logits_RV.shape.columns;
  check("softmax_chunk", state_R3, rows, targets_R.size()), check_chunk("softmax_chunk", logits_RV, chunk);
  dispatch_wide("softmax_chunk", logits_RV, state_R3, [&](auto zero) {
    using W = decltype(zero);
    const auto& body = pick<TokenLossBody<W>>();
    in_ranges(rows, 8 * columns, [&](Range r) {
      for (Extent i = r.begin; i < r.end; ++i) {
        W* state = state_R3.pointer<W>() + 3 * i;
        body.chunk(logits_RV.pointer<W>() + i * columns, columns, state, first);
        const int target = targets_R[i];
        if (first) state[2] = 0;
        if (target >= 0 && chunk.contains(Extent(target))) state[2] = logits_RV.at<W>(i, Extent(target) - chunk.begin);
      }
    });
  });
}

void softmax_rescale(View state_R3, View top_R) {
  check("softmax_rescale", state_R3, top_R.size(), top_R.size());
  dispatch_wide("softmax_rescale", state_R3, top_R, [&](auto zero) {
    using W = decltype(zero);
    for (Extent i = 0; i < top_R.size(); ++i) {
      W* state = state_R3.pointer<W>() + 3 * i;
      const W top = top_R.pointer<W>()[i];
      state[1] *= std::exp(state[0] - top);
      state[0] = top;
    }
  });
}

void token_loss(View state_R3, std::span<const int> targets_R, View loss_1) {
  check("token_loss", state_R3, targets_R.size(), targets_R.size());
  if (loss_1.size() != 1 || loss_1.element != Element::f64)
    fail<301>("kernels::token_loss writes one f64, not ", loss_1.size(), " ", name_of(loss_1.element));
  dispatch_wide("token_loss", state_R3, state_R3, [&](auto zero) {
    using W = decltype(zero);
    double loss = 0;
    for (Extent i = 0; i < targets_R.size(); ++i) {
      const W* state = state_R3.pointer<W>() + 3 * i;
      if (targets_R[i] >= 0) loss += std::log(double(state[1])) + (double(state[0]) - double(state[2]));
    }
    *loss_1.pointer<double>() = loss;
  });
}

void softmax_chunk_pullback(View logits_RV, std::span<const int> targets_R, Range chunk, View state_R3, double weight) {
  const Extent rows = logits_RV.shape.rows, columns = logits_RV.shape.columns;
  check("softmax_chunk_pullback", state_R3, rows, targets_R.size()), check_chunk("softmax_chunk_pullback", logits_RV, chunk);
  dispatch_wide("softmax_chunk_pullback", logits_RV, state_R3, [&](auto zero) {
    using W = decltype(zero);
    const auto& body = pick<TokenLossBody<W>>();
    in_ranges(rows, 8 * columns, [&](Range r) {
      for (Extent i = r.begin; i < r.end; ++i) {
        W* row = logits_RV.pointer<W>() + i * columns;
        const W* state = state_R3.pointer<W>() + 3 * i;
        const int target = targets_R[i];
        if (target < 0) {
          std::memset(row, 0, columns * sizeof(W));
          continue;
        }
        body.pullback(row, columns, state[0], W(weight / double(state[1])));
        if (chunk.contains(Extent(target))) row[Extent(target) - chunk.begin] -= W(weight);
      }
    });
  });
}

}  // namespace dsx::kernels
