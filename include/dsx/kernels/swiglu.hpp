// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The gated linear unit of Llama (Shazeer 2020): a row of x holds H gates, then H values.
///
///     kernels::swiglu(x_R2H, y_RH);
///     kernels::swiglu_pullback(x_R2H, dy_RH, {dx_R2H, false});
#pragma once

#include <dsx/tensor/view.hpp>

#include <cmath>

namespace dsx::kernels {

/// y = gate sigmoid(gate) up.
void swiglu(View x_R2H, View y_RH);
void swiglu_pullback(View x_R2H, View dy_RH, Grad dx_R2H);

}  // namespace dsx::kernels

namespace dsx::reference {

template <class T>
void swiglu(const T* x_R2H, Extent rows, Extent hidden, T* y_RH) {
  for (Extent r = 0; r < rows; ++r)
    for (Extent h = 0; h < hidden; ++h) {
      const double gate = double(x_R2H[2 * r * hidden + h]), up = double(x_R2H[(2 * r + 1) * hidden + h]);
      y_RH[r * hidden + h] = T(Wide<T>(gate / (1 + std::exp(-gate)) * up));
    }
}

template <class T, class G>
void swiglu_pullback(const T* x_R2H, const T* dy_RH, Extent rows, Extent hidden, G* dx_R2H, bool accumulate) {
  const auto add = [&](G& to, double value) { to = G(Wide<G>(accumulate ? double(to) + value : value)); };
  for (Extent r = 0; r < rows; ++r)
    for (Extent h = 0; h < hidden; ++h) {
      const Extent at_gate = 2 * r * hidden + h, at_up = at_gate + hidden;
      const double gate = double(x_R2H[at_gate]), up = double(x_R2H[at_up]), dy = double(dy_RH[r * hidden + h]);
      const double sigmoid = 1 / (1 + std::exp(-gate));
      add(dx_R2H[at_gate], dy * up * sigmoid * (1 + gate * (1 - sigmoid)));
      add(dx_R2H[at_up], dy * gate * sigmoid);
    }
}

}  // namespace dsx::reference
