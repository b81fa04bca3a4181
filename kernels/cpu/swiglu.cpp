// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The gated linear unit on the host, rows over threads.
#include "swiglu_body.hpp"
#include "support.hpp"

#include <dsx/kernels/swiglu.hpp>

namespace dsx::kernels {
namespace {

void check(std::string_view kernel, const View& x_R2H, const View& y_RH) {
  if (x_R2H.shape.columns != 2 * y_RH.shape.columns || x_R2H.shape.rows != y_RH.shape.rows)
    fail<301>("kernels::", kernel, " got ", x_R2H.shape.rows, " x ", x_R2H.shape.columns, " gates and values for ", y_RH.shape.rows, " x ",
              y_RH.shape.columns, " results");
}

}  // namespace

void swiglu(View x_R2H, View y_RH) {
  on_host("swiglu", {x_R2H, y_RH});
  same_element("swiglu", x_R2H, y_RH), check("swiglu", x_R2H, y_RH);
  const Extent hidden = y_RH.shape.columns;
  dispatch(x_R2H.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<SwigluBody<T>>();
    in_ranges(y_RH.shape.rows, 8 * hidden, [&](Range rows) {
      for (Extent r = rows.begin; r < rows.end; ++r) {
        const T* const gate = x_R2H.pointer<T>() + 2 * r * hidden;
        body.forward(gate, gate + hidden, y_RH.pointer<T>() + r * hidden, hidden);
      }
    });
  });
}

void swiglu_pullback(View x_R2H, View dy_RH, Grad dx_R2H) {
  on_host("swiglu_pullback", {x_R2H, dy_RH, dx_R2H.view});
  same_element("swiglu_pullback", x_R2H, dy_RH), same_shape("swiglu_pullback", x_R2H, dx_R2H.view), check("swiglu_pullback", x_R2H, dy_RH);
  const Extent hidden = dy_RH.shape.columns;
  dispatch_grad("swiglu_pullback", x_R2H.element, dx_R2H.view.element, [&](auto zero, auto grad_zero) {
    using T = decltype(zero);
    using G = decltype(grad_zero);
    const auto& body = pick<SwigluGrad<T, G>>();
    in_ranges(dy_RH.shape.rows, 8 * hidden, [&](Range rows) {
      for (Extent r = rows.begin; r < rows.end; ++r) {
        const T* const gate = x_R2H.pointer<T>() + 2 * r * hidden;
        G* const dgate = dx_R2H.view.pointer<G>() + 2 * r * hidden;
        body.pullback(gate, gate + hidden, dy_RH.pointer<T>() + r * hidden, dgate, dgate + hidden, hidden, dx_R2H.accumulate);
      }
    });
  });
}

}  // namespace dsx::kernels
