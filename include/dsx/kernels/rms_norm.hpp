// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Normalisation of rows by their root mean square (Zhang & Sennrich 2019). R rows, C channels.
///
///     kernels::rms_norm(x_RC, gain_C, 1e-6, y_RC, scales_R);
#pragma once

#include <dsx/tensor/view.hpp>

#include <cmath>

namespace dsx::kernels {

/// y = x / sqrt(mean of x^2 + epsilon) * gain. scales_R keeps the reciprocal root for the pullback, in wide(element).
void rms_norm(View x_RC, View gain_C, double epsilon, View y_RC, View scales_R);
void rms_norm_inputs(View x_RC, View gain_C, View scales_R, View dy_RC, Grad dx_RC);
/// The gradient's element may be wider than x's.
void rms_norm_weights(View x_RC, View scales_R, View dy_RC, Grad dgain_C);

}  // namespace dsx::kernels

namespace dsx::reference {

template <class T>
void rms_norm(const T* x_RC, const T* gain_C, double epsilon, Extent rows, Extent columns, T* y_RC, Wide<T>* scales_R) {
  for (Extent r = 0; r < rows; ++r) {
    const T* x = x_RC + r * columns;
    double square = 0;
    for (Extent c = 0; c < columns; ++c) square += double(x[c]) * double(x[c]) / double(columns);
    const double scale = 1 / std::sqrt(square + epsilon);
    for (Extent c = 0; c < columns; ++c) y_RC[r * columns + c] = T(Wide<T>(double(x[c]) * scale * double(gain_C[c])));
    scales_R[r] = Wide<T>(scale);
  }
}

template <class T, class G>
void rms_norm_inputs(const T* x_RC, const T* gain_C, const Wide<T>* scales_R, const T* dy_RC, Extent rows, Extent columns, G* dx_RC,
                     bool accumulate) {
  for (Extent r = 0; r < rows; ++r) {
    const double scale = double(scales_R[r]);
    const auto slope = [&](Extent c) { return double(dy_RC[r * columns + c]) * double(gain_C[c]); };
    const auto normal = [&](Extent c) { return double(x_RC[r * columns + c]) * scale; };
    double product = 0;
    for (Extent c = 0; c < columns; ++c) product += slope(c) * normal(c) / double(columns);
    for (Extent c = 0; c < columns; ++c) {
      const double dx = scale * (slope(c) - normal(c) * product);
      G& to = dx_RC[r * columns + c];
      to = G(Wide<G>(accumulate ? double(to) + dx : dx));
    }
  }
}

template <class T, class G>
void rms_norm_weights(const T* x_RC, const Wide<T>* scales_R, const T* dy_RC, Extent rows, Extent columns, G* dgain_C, bool accumulate) {
  for (Extent c = 0; c < columns; ++c) {
    double gain = accumulate ? double(dgain_C[c]) : 0;
    for (Extent r = 0; r < rows; ++r) gain += double(dy_RC[r * columns + c]) * double(x_RC[r * columns + c]) * double(scales_R[r]);
    dgain_C[c] = G(Wide<G>(gain));
  }
}

}  // namespace dsx::reference
