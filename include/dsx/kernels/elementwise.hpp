// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Elementwise kernels: copies and casts, sums, scaling, biases, GELU, dropout. R rows, C columns.
///
///     kernels::gelu(x_RC, y_RC, Gelu::tanh);
///     kernels::gelu_pullback(x_RC, dy_RC, {dx_RC, false}, Gelu::tanh);
///
/// All views of a call lie at one place and, unless said otherwise, hold one element type.
#pragma once

#include <dsx/core/random.hpp>
#include <dsx/tensor/view.hpp>

#include <cmath>
#include <numbers>

namespace dsx {

/// The Gaussian error linear unit (Hendrycks & Gimpel 2016): exact by erf, or GPT-2's approximation by tanh.
enum class Gelu : std::uint8_t { tanh, erf };

namespace kernels {

/// to = from, converted to the element type of `to`.
void copy(View from, View to);
/// Some columns of `from` into some of `to`; both have the same rows and element type.
void copy_columns(View from, Range columns, View to, Range to_columns);
void zero(View x);
/// y = factor x; y may be x.
void scale(View x, double factor, View y);
void add(View a, View b, View y);
/// to = from or to += from; element types may differ.
void pass_on(View from, Grad to);

/// y = x + bias in each row; y may be x.
void add_bias(View x_RC, View bias_C, View y_RC);
/// Sums over rows: the gradient of a bias. Its element may be wider than dy's.
void column_sums(View dy_RC, Grad dbias_C);

void gelu(View x, View y, Gelu form);
/// dx = or += dy gelu'(x).
void gelu_pullback(View x, View dy, Grad dx, Gelu form);

/// y = or += x / (1 - rate) where uniform(key, ids[row], first_column + column) >= rate, else 0 (inverted dropout, Srivastava et al. 2014).
/// The same call with dy and dx is its own pullback. `first_column`: of this rank's columns in the whole row.
void dropout(View x_RC, Grad y_RC, const RowId* ids_R, Extent first_column, double rate, const RandomKey& key);

}  // namespace kernels
}  // namespace dsx

namespace dsx::reference {

/// *to = value or *to += value, in the wide type, rounded once.
template <class G>
void put(G& to, double value, bool accumulate) {
  to = G(Wide<G>(accumulate ? double(to) + value : value));
}

template <class T>
double gelu(T x_, Gelu form) {
  const double x = double(x_);
  if (form == Gelu::erf) return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

/// The derivative of gelu().
template <class T>
double gelu_slope(T x_, Gelu form) {
  const double x = double(x_), bell = std::sqrt(2 / std::numbers::pi);
  if (form == Gelu::erf) return 0.5 * std::erfc(-x / std::numbers::sqrt2) + x * 0.5 * bell * std::exp(-0.5 * x * x);
  const double t = std::tanh(bell * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * bell * (1 + 3 * 0.044715 * x * x);
}

template <class T, class G>
void column_sums(const T* dy_RC, Extent rows, Extent columns, G* sums_C, bool accumulate) {
  for (Extent c = 0; c < columns; ++c) {
    double sum = 0;
    for (Extent r = 0; r < rows; ++r) sum += double(dy_RC[r * columns + c]);
    put(sums_C[c], sum, accumulate);
  }
}

template <class T, class G>
void dropout(const T* x_RC, Extent rows, Extent columns, G* y_RC, bool accumulate, const RowId* ids_R, Extent first_column, double rate,
             const RandomKey& key) {
  using W = Wide<T>;
  const W factor = W(1 / (1 - rate));
  for (Extent r = 0; r < rows; ++r)
    for (Extent c = 0; c < columns; ++c) {
      const bool kept = uniform(key, ids_R[r], std::uint32_t(first_column + c)) >= rate;
      put(y_RC[r * columns + c], kept ? W(x_RC[r * columns + c]) * factor : W(0), accumulate);
    }
}

}  // namespace dsx::reference
