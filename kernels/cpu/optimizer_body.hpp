// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Loops of the optimizers over contiguous elements, compiled once for each instruction set. W: of master and states; G: of
/// gradients; O: of the cast result, which is left out where `weights` is null.
///
///     pick<OptimizerBody<W, G, O>>().adamw(step, master, gradient, first, second, weights, n);
#pragma once

#include "simd.hpp"

#include <dsx/kernels/optimizer.hpp>

namespace dsx::kernels {

template <class W, class G, class O>
struct OptimizerBody {
  void (*adamw)(const AdamWStep& step, W* master, const G* gradient, W* first, W* second, O* weights, std::size_t n);
  void (*adamw_frozen)(const AdamWStep& step, W* master, W* first, const W* second, O* weights, std::size_t n);
  void (*blend)(double kept, double fresh, const G* gradient, W* state, std::size_t n);
  /// `velocity` may be null.
  void (*sgd)(const SgdStep& step, W* master, const G* gradient, W* velocity, O* weights, std::size_t n);
  /// O: of the direction.
  void (*muon_momentum)(double momentum, double scale, const G* gradient, W* state, O* out, std::size_t n);
  /// G: of the direction.
  void (*step_along)(double step, double rate_decay, W* master, const G* direction, O* weights, std::size_t n);
  static const OptimizerBody v3, v4;
};

template <class T>
struct NormBody {
  double (*squared_norm)(const T* x, std::size_t n);
  bool (*all_finite)(const T* x, std::size_t n);
  static const NormBody v3, v4;
};

namespace DSX_ISA {

template <class W, class O, class Some>
DSX_INLINE void put_weights(W* master, O* weights, size_t i, Pack<W> w, Some some) {
  store(master + i, w, some);
  if (weights) store(weights + i, w, some);
}

/// The processor follows few streams, and each only to the end of its page: 1 KiB ahead of four that are read, three of them written.
inline constexpr size_t elements_ahead = 256;

template <class W, class G, class O>
void adamw(const AdamWStep& step, W* master, const G* gradient, W* first, W* second, O* weights, size_t n) {
  const W scale = W(step.scale), beta_1 = W(step.beta_1), rest_1 = W(1 - step.beta_1), beta_2 = W(step.beta_2), rest_2 = W(1 - step.beta_2);
  const W kept = W(1 - step.rate * step.decay), pace = W(step.rate / step.correction_1), epsilon = W(step.epsilon);
  const W unbias = W(1 / ::sqrt(step.correction_2));
  lanes<W>(n, [&](size_t i, auto some) {
    __builtin_prefetch(gradient + i + elements_ahead);
    for (const W* written : {master, first, second}) __builtin_prefetch(written + i + elements_ahead, 1);
    const Pack<W> g = load<W>(gradient + i, some) * scale;
    const Pack<W> m = load<W>(first + i, some) * beta_1 + g * rest_1;
    const Pack<W> v = load<W>(second + i, some) * beta_2 + g * g * rest_2;
    const Pack<W> w = load<W>(master + i, some) * kept - m * pace / (root(v) * unbias + epsilon);
    store(first + i, m, some), store(second + i, v, some);
    put_weights(master, weights, i, w, some);
  });
}

template <class W, class O>
void adamw_frozen(const AdamWStep& step, W* master, W* first, const W* second, O* weights, size_t n) {
  const W kept = W(1 - step.rate * step.decay), pace = W(step.rate), epsilon = W(step.epsilon);
  lanes<W>(n, [&](size_t i, auto some) {
    const Pack<W> v = load<W>(second + i, some), m = v != Pack<W>{} ? load<W>(first + i, some) : Pack<W>{};
    const Pack<W> w = load<W>(master + i, some) * kept - m * pace / (root(v) + epsilon);
    store(first + i, m, some);
    put_weights(master, weights, i, w, some);
  });
}

template <class W, class G>
void blend(double kept, double fresh, const G* gradient, W* state, size_t n) {
  const W stays = W(kept), comes = W(fresh);
  lanes<W>(n, [&](size_t i, auto some) { store(state + i, load<W>(state + i, some) * stays + load<W>(gradient + i, some) * comes, some); });
}

template <class W, class G, class O>
void sgd(const SgdStep& step, W* master, const G* gradient, W* velocity, O* weights, size_t n) {
  const W scale = W(step.scale), decay = W(step.decay), momentum = W(step.momentum), rate = W(step.rate);
  lanes<W>(n, [&](size_t i, auto some) {
    const Pack<W> w = load<W>(master + i, some);
    Pack<W> m = load<W>(gradient + i, some) * scale + w * decay;
    if (velocity) {
      m += load<W>(velocity + i, some) * momentum;
      store(velocity + i, m, some);
    }
    put_weights(master, weights, i, w - m * rate, some);
  });
}

template <class W, class G, class O>
void muon_momentum(double momentum, double scale, const G* gradient, W* state, O* out, size_t n) {
  const W kept = W(momentum), fresh = W(1 - momentum), factor = W(scale);
  lanes<W>(n, [&](size_t i, auto some) {
    const Pack<W> g = load<W>(gradient + i, some) * factor * fresh;
    const Pack<W> m = load<W>(state + i, some) * kept + g;
    store(state + i, m, some);
    store(out + i, m * kept + g, some);
  });
}

template <class W, class G, class O>
void step_along(double step, double rate_decay, W* master, const G* direction, O* weights, size_t n) {
  const W kept = W(1 - rate_decay), pace = W(step);
  lanes<W>(
      n, [&](size_t i, auto some) { put_weights(master, weights, i, load<W>(master + i, some) * kept - load<W>(direction + i, some) * pace, some); });
}

template <class T>
double squared_norm(const T* x, size_t n) {
  constexpr size_t lane_count = count_of<double>;
  Pack<double> sums[4]{};
  size_t i = 0;
  for (; i + 4 * lane_count <= n; i += 4 * lane_count)
    for (size_t p = 0; p < 4; ++p) {
      const Pack<double> v = load<double>(x + i + p * lane_count, Whole{});
      sums[p] += v * v;
    }
  lanes<double>(n - i, [&](size_t j, auto some) {
    const Pack<double> v = load<double>(x + i + j, some);
    sums[0] += v * v;
  });
  return sum<double>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class T>
bool all_finite(const T* x, size_t n) {
  using W = Wide<T>;
  // x - x is 0 for a finite number, else NaN, and a NaN stays in a sum.
  Pack<W> rest{};
  lanes<W>(n, [&](size_t i, auto some) {
    const Pack<W> v = load<W>(x + i, some);
    rest += v - v;
  });
  return sum<W>(rest) == W(0);
}

}  // namespace DSX_ISA

#define DSX_BODY(W, G, O)                                                                                                                     \
  template <>                                                                                                                                 \
  const OptimizerBody<W, G, O> OptimizerBody<W, G, O>::v3;                                                                                    \
  template <>                                                                                                                                 \
  const OptimizerBody<W, G, O> OptimizerBody<W, G, O>::v4;                                                                                    \
  template <>                                                                                                                                 \
  const OptimizerBody<W, G, O> OptimizerBody<W, G, O>::DSX_ISA{                                                                               \
      DSX_ISA::adamw<W, G, O>, DSX_ISA::adamw_frozen<W, O>, DSX_ISA::blend<W, G>, DSX_ISA::sgd<W, G, O>, DSX_ISA::muon_momentum<W, G, O>,     \
      DSX_ISA::step_along<W, G, O>};
DSX_BODY(float, float, float)
DSX_BODY(float, float, bf16)
DSX_BODY(float, bf16, float)
DSX_BODY(float, bf16, bf16)
DSX_BODY(double, double, double)
DSX_BODY(double, double, float)
DSX_BODY(double, double, bf16)
DSX_BODY(double, float, double)
DSX_BODY(double, float, float)
DSX_BODY(double, bf16, double)
DSX_BODY(double, bf16, bf16)
#undef DSX_BODY

#define DSX_BODY(T)                  \
  template <>                        \
  const NormBody<T> NormBody<T>::v3; \
  template <>                        \
  const NormBody<T> NormBody<T>::v4; \
  template <>                        \
  const NormBody<T> NormBody<T>::DSX_ISA{DSX_ISA::squared_norm<T>, DSX_ISA::all_finite<T>};
DSX_BODY(float)
DSX_BODY(double)
DSX_BODY(bf16)
#undef DSX_BODY

}  // namespace dsx::kernels
