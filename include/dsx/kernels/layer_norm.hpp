// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Layer normalisation of rows (Ba et al. 2016). R rows, C channels.
///
///     kernels::layer_norm(x_RC, gain_C, bias_C, 1e-5, y_RC, stats_R2);
#pragma once

#include <dsx/tensor/view.hpp>

#include <cmath>

namespace dsx::kernels {

/// y = (x - mean) / sqrt(variance + epsilon) * gain + bias. stats_R2 keeps mean and reciprocal deviation for the pullback, in wide(element).
void layer_norm(View x_RC, View gain_C, View bias_C, double epsilon, View y_RC, View stats_R2);
void layer_norm_inputs(View x_RC, View gain_C, View stats_R2, View dy_RC, Grad dx_RC);
/// The gradients' elements may be wider than x's.
void layer_norm_weights(View x_RC, View stats_R2, View dy_RC, Grad dgain_C, Grad dbias_C);

}  // namespace dsx::kernels

namespace dsx::reference {

template <class T>
void layer_norm(const T* x_RC, const T* gain_C, const T* bias_C, double epsilon, Extent rows, Extent columns, T* y_RC, Wide<T>* stats_R2) {
  for (Extent r = 0; r < rows; ++r) {
    const T* x = x_RC + r * columns;
    double mean = 0, variance = 0;
    for (Extent c = 0; c < columns; ++c) mean += double(x[c]) / double(columns);
    for (Extent c = 0; c < columns; ++c) variance += (double(x[c]) - mean) * (double(x[c]) - mean) / double(columns);
    const double deviation = 1 / std::sqrt(variance + epsilon);
    for (Extent c = 0; c < columns; ++c)
      y_RC[r * columns + c] = T(Wide<T>((double(x[c]) - mean) * deviation * double(gain_C[c]) + double(bias_C[c])));
    stats_R2[2 * r] = Wide<T>(mean), stats_R2[2 * r + 1] = Wide<T>(deviation);
  }
}

template <class T, class G>
void layer_norm_inputs(const T* x_RC, const T* gain_C, const Wide<T>* stats_R2, const T* dy_RC, Extent rows, Extent columns, G* dx_RC,
                       bool accumulate) {
  for (Extent r = 0; r < rows; ++r) {
    const double mean = double(stats_R2[2 * r]), deviation = double(stats_R2[2 * r + 1]);
    const auto normal = [&](Extent c) { return (double(x_RC[r * columns + c]) - mean) * deviation; };
    const auto slope = [&](Extent c) { return double(dy_RC[r * columns + c]) * double(gain_C[c]); };
    double sum = 0, product = 0;
    for (Extent c = 0; c < columns; ++c) sum += slope(c) / double(columns), product += slope(c) * normal(c) / double(columns);
    for (Extent c = 0; c < columns; ++c) {
      const double dx = deviation * (slope(c) - sum - normal(c) * product);
      G& to = dx_RC[r * columns + c];
      to = G(Wide<G>(accumulate ? double(to) + dx : dx));
    }
  }
}

template <class T, class G>
void layer_norm_weights(const T* x_RC, const Wide<T>* stats_R2, const T* dy_RC, Extent rows, Extent columns, G* dgain_C, bool add_gain, G* dbias_C,
                        bool add_bias) {
  for (Extent c = 0; c < columns; ++c) {
    double gain = add_gain ? double(dgain_C[c]) : 0, bias = add_bias ? double(dbias_C[c]) : 0;
    for (Extent r = 0; r < rows; ++r) {
      const double dy = double(dy_RC[r * columns + c]);
      gain += dy * (double(x_RC[r * columns + c]) - double(stats_R2[2 * r])) * double(stats_R2[2 * r + 1]);
      bias += dy;
    }
    dgain_C[c] = G(Wide<G>(gain)), dbias_C[c] = G(Wide<G>(bias));
  }
}

}  // namespace dsx::reference
