// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// One fused pass over a slice of weights for each optimizer whose grain is an element, and the sum of squares.
///
///     kernels::adamw({.rate = 3e-4, .scale = clip, .correction_1 = 1 - 0.9, ...}, master, gradient, first, second, weights);
///
/// `master` and states hold f32 or f64; the gradient may be narrower; `weights`, if it isn't master itself, gets the cast result.
#pragma once

#include <dsx/core/exact_sum.hpp>
#include <dsx/tensor/view.hpp>

#include <cmath>

namespace dsx::kernels {

/// AdamW (Loshchilov & Hutter 2019): decay apart from the gradient, epsilon outside the root.
struct AdamWStep {
  double rate = 0, beta_1 = 0.9, beta_2 = 0.999, epsilon = 1e-8, decay = 0;
  double scale = 1;                           // of gradients: clipping
  double correction_1 = 1, correction_2 = 1;  // 1 - beta^step
};
void adamw(const AdamWStep& step, View master, View gradient, View first, View second, View weights);

/// AdamW's step along its first moment under a second moment that stays as it is (`scale` and the corrections aren't used). Where the second
/// moment is zero there was no gradient yet: the first becomes zero too, and only the decay acts.
void adamw_frozen(const AdamWStep& step, View master, View first, View second, View weights);
/// m = kept m + fresh g.
void blend(double kept, double fresh, View gradient, View momentum_state);

/// Stochastic gradient descent; momentum as in PyTorch: m = momentum m + g, w -= rate m. Without momentum `velocity` is empty.
struct SgdStep {
  double rate = 0, momentum = 0, decay = 0, scale = 1;  // decay is added to the gradient
};
void sgd(const SgdStep& step, View master, View gradient, View velocity, View weights);

/// Momentum of Muon (Jordan 2024): m = momentum m + (1 - momentum) g; out = Nesterov's look ahead, momentum m + (1 - momentum) g.
void muon_momentum(double momentum, double scale, View gradient, View momentum_state, View out);
/// w = (1 - rate decay) w - step direction, and the cast result.
void step_along(double step, double rate_decay, View master, View direction, View weights);

/// The sum of squares, in double, in a fixed order that doesn't depend on threads.
double squared_norm(View x);
/// The same sum without rounding but of the squares themselves.
void add_squares(View x, ExactSum& sum);
/// Whether every element is finite.
bool all_finite(View x);

}  // namespace dsx::kernels

namespace dsx::reference {

/// One element each; the caller rounds what the master holds to the cast result.
template <class W>
void adamw(const kernels::AdamWStep& s, W& master, double gradient, W& first, W& second) {
  const double g = s.scale * gradient;
  const double m = s.beta_1 * double(first) + (1 - s.beta_1) * g, v = s.beta_2 * double(second) + (1 - s.beta_2) * g * g;
  const double w = (1 - s.rate * s.decay) * double(master) - s.rate * (m / s.correction_1) / (std::sqrt(v / s.correction_2) + s.epsilon);
  first = W(m), second = W(v), master = W(w);
}

template <class W>
void adamw_frozen(const kernels::AdamWStep& s, W& master, W& first, W second) {
  if (second == W(0)) first = W(0);
  master = W((1 - s.rate * s.decay) * double(master) - s.rate * double(first) / (std::sqrt(double(second)) + s.epsilon));
}

template <class W>
void blend(double kept, double fresh, double gradient, W& state) {
  state = W(kept * double(state) + fresh * gradient);
}

template <class W>
void sgd(const kernels::SgdStep& s, W& master, double gradient, W* velocity) {
  double m = s.scale * gradient + s.decay * double(master);
  if (velocity) m += s.momentum * double(*velocity), *velocity = W(m);
  master = W(double(master) - s.rate * m);
}

/// Returns what goes to `out`.
template <class W>
double muon_momentum(double momentum, double scale, double gradient, W& state) {
  const double g = (1 - momentum) * scale * gradient, m = momentum * double(state) + g;
  state = W(m);
  return momentum * m + g;
}

template <class W>
void step_along(double step, double rate_decay, W& master, double direction) {
  master = W((1 - rate_decay) * double(master) - step * direction);
}

}  // namespace dsx::reference
