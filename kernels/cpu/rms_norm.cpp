// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Normalisation by the root mean square on the host: rows over threads, and for the gain's gradient columns over threads.
#include "rms_norm_body.hpp"
#include "support.hpp"

#include <dsx/kernels/rms_norm.hpp>

namespace dsx::kernels {
namespace {

void check(std::string_view kernel, const View& x_RC, const View& gain_C, const View& scales_R) {
  if (gain_C.size() != x_RC.shape.columns || scales_R.size() != x_RC.shape.rows)
    fail<301>("kernels::", kernel, " got ", gain_C.size(), " gains and ", scales_R.size(), " scales for ", x_RC.shape.rows, " rows of ",
              x_RC.shape.columns);
  if (scales_R.element != wide(x_RC.element))
    fail<405>("kernels::", kernel, " keeps scales of ", name_of(x_RC.element), " rows as ", name_of(wide(x_RC.element)), ", not as ",
              name_of(scales_R.element));
}

}  // namespace

void rms_norm(View x_RC, View gain_C, double epsilon, View y_RC, View scales_R) {
  on_host("rms_norm", {x_RC, gain_C, y_RC, scales_R});
  same_shape("rms_norm", x_RC, y_RC), same_element("rms_norm", x_RC, gain_C, y_RC);
  check("rms_norm", x_RC, gain_C, scales_R);
  const Extent columns = x_RC.shape.columns;
  dispatch(x_RC.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<RmsNormBody<T>>();
    in_ranges(x_RC.shape.rows, columns, [&](Range r) {
      body.forward(x_RC.pointer<T>() + r.begin * columns, gain_C.pointer<T>(), epsilon, y_RC.pointer<T>() + r.begin * columns,
                   scales_R.pointer<Wide<T>>() + r.begin, r.size(), columns);
    });
  });
}

void rms_norm_inputs(View x_RC, View gain_C, View scales_R, View dy_RC, Grad dx_RC) {
  on_host("rms_norm_inputs", {x_RC, gain_C, scales_R, dy_RC, dx_RC.view});
  same_shape("rms_norm_inputs", x_RC, dy_RC, dx_RC.view), same_element("rms_norm_inputs", x_RC, gain_C, dy_RC);
  check("rms_norm_inputs", x_RC, gain_C, scales_R);
  const Extent columns = x_RC.shape.columns;
  dispatch_grad("rms_norm_inputs", x_RC.element, dx_RC.view.element, [&](auto zero, auto grad_zero) {
    using T = decltype(zero);
    using G = decltype(grad_zero);
    const auto& body = pick<RmsNormGrad<T, G>>();
    in_ranges(x_RC.shape.rows, columns, [&](Range r) {
      body.inputs(x_RC.pointer<T>() + r.begin * columns, gain_C.pointer<T>(), scales_R.pointer<Wide<T>>() + r.begin,
                  dy_RC.pointer<T>() + r.begin * columns, dx_RC.view.pointer<G>() + r.begin * columns, r.size(), columns, dx_RC.accumulate);
    });
  });
}

void rms_norm_weights(View x_RC, View scales_R, View dy_RC, Grad dgain_C) {
  on_host("rms_norm_weights", {x_RC, scales_R, dy_RC, dgain_C.view});
  same_shape("rms_norm_weights", x_RC, dy_RC), same_element("rms_norm_weights", x_RC, dy_RC);
  check("rms_norm_weights", x_RC, dgain_C.view, scales_R);
  const Extent rows = x_RC.shape.rows, columns = x_RC.shape.columns;
  dispatch_grad("rms_norm_weights", x_RC.element, dgain_C.view.element, [&](auto zero, auto grad_zero) {
    using T = decltype(zero);
    using G = decltype(grad_zero);
    const auto& body = pick<RmsNormGrad<T, G>>();
    in_ranges(columns, rows, [&](Range r) {
      body.weights(x_RC.pointer<T>(), scales_R.pointer<Wide<T>>(), dy_RC.pointer<T>(), dgain_C.view.pointer<G>(), rows, columns, r.begin, r.end,
                   dgain_C.accumulate);
    });
  });
}

}  // namespace dsx::kernels
