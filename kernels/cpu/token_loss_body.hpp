// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Loops of the token loss over one row of logits, compiled once for each instruction set.
///
///     pick<TokenLossBody<W>>().chunk(logits, n, state, first);        // state: largest, sum of exponentials, target's logit
///     pick<TokenLossBody<W>>().pullback(logits, n, largest, factor);  // logits = factor exp(logits - largest)
#pragma once

#include "simd.hpp"

namespace dsx::kernels {

template <class W>
struct TokenLossBody {
  void (*chunk)(const W* logits, std::size_t n, W* state, bool first);
  void (*pullback)(W* logits, std::size_t n, W top, W factor);
  static const TokenLossBody v3, v4;
};

namespace DSX_ISA {

template <class W>
void softmax_chunk(const W* logits, size_t n, W* state, bool first) {
  const W lowest = W(-HUGE_VAL);
  Pack<W> tops = spread(W(0)) + (first ? lowest : state[0]);
  lanes<W>(n, [&](size_t i, auto some) {
    const Pack<W> l = only<W>(load<W>(logits + i, some), some, lowest);
    tops = l > tops ? l : tops;
  });
  const W top = largest<W>(tops);
  Pack<W> sums{};
  lanes<W>(n, [&](size_t i, auto some) { sums += only<W>(exp(load<W>(logits + i, some) - top), some); });
  const W before = first ? W(0) : state[1] * exp_of(state[0] - top);
  state[0] = top, state[1] = before + sum<W>(sums);
}

template <class W>
void softmax_chunk_pullback(W* logits, size_t n, W top, W factor) {
  lanes<W>(n, [&](size_t i, auto some) { store(logits + i, exp(load<W>(logits + i, some) - top) * factor, some); });
}

}  // namespace DSX_ISA

#define DSX_BODY(W)                            \
  template <>                                  \
  const TokenLossBody<W> TokenLossBody<W>::v3; \
  template <>                                  \
  const TokenLossBody<W> TokenLossBody<W>::v4; \
  template <>                                  \
  const TokenLossBody<W> TokenLossBody<W>::DSX_ISA{DSX_ISA::softmax_chunk<W>, DSX_ISA::softmax_chunk_pullback<W>};
DSX_BODY(float)
DSX_BODY(double)
#undef DSX_BODY

}  // namespace dsx::kernels
