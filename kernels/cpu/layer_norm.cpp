// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Layer normalisation on the host: rows over threads, and for the weights' gradients columns over threads.
#include "layer_norm_body.hpp"
#include "support.hpp"

#include "cuda/launchers.hpp"

#include <dsx/kernels/layer_norm.hpp>

namespace dsx::kernels {
namespace {

void check(std::string_view kernel, const View& x_RC, const View& weights_C, const View& stats_R2) {
  if (weights_C.size() != x_RC.shape.columns || stats_R2.size() != 2 * x_RC.shape.rows)
    fail<301>("kernels::", kernel, " got ", weights_C.size(), " weights and ", stats_R2.size(), " statistics for ", x_RC.shape.rows, " rows of ",
              x_RC.shape.columns);
  if (stats_R2.element != wide(x_RC.element))
    fail<405>("kernels::", kernel, " keeps statistics of ", name_of(x_RC.element), " rows as ", name_of(wide(x_RC.element)), ", not as ",
              name_of(stats_R2.element));
}

}  // namespace

void layer_norm(View x_RC, View gain_C, View bias_C, double epsilon, View y_RC, View stats_R2) {
  same_shape("layer_norm", x_RC, y_RC), same_shape("layer_norm", gain_C, bias_C), same_element("layer_norm", x_RC, gain_C, bias_C, y_RC);
  check("layer_norm", x_RC, gain_C, stats_R2);
  if (const Stream* s = gpu_stream("layer_norm", {x_RC, gain_C, bias_C, y_RC, stats_R2}))
    return cuda::layer_norm(x_RC, gain_C, bias_C, epsilon, y_RC, stats_R2, s->handle());
  const Extent columns = x_RC.shape.columns;
  dispatch(x_RC.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<LayerNormBody<T>>();
    in_ranges(x_RC.shape.rows, columns, [&](Range r) {
      body.forward(x_RC.pointer<T>() + r.begin * columns, gain_C.pointer<T>(), bias_C.pointer<T>(), epsilon, y_RC.pointer<T>() + r.begin * columns,
                   stats_R2.pointer<Wide<T>>() + 2 * r.begin, r.size(), columns);
    });
  });
}

void layer_norm_inputs(View x_RC, View gain_C, View stats_R2, View dy_RC, Grad dx_RC) {
  same_shape("layer_norm_inputs", x_RC, dy_RC, dx_RC.view), same_element("layer_norm_inputs", x_RC, gain_C, dy_RC);
  check("layer_norm_inputs", x_RC, gain_C, stats_R2);
  if (const Stream* s = gpu_stream("layer_norm_inputs", {x_RC, gain_C, stats_R2, dy_RC, dx_RC.view})) {
    same_element("layer_norm_inputs", x_RC, dx_RC.view);
    return cuda::layer_norm_inputs(x_RC, gain_C, stats_R2, dy_RC, dx_RC, s->handle());
  }
  const Extent columns = x_RC.shape.columns;
  dispatch_grad("layer_norm_inputs", x_RC.element, dx_RC.view.element, [&](auto zero, auto grad_zero) {
    using T = decltype(zero);
    using G = decltype(grad_zero);
    const auto& body = pick<LayerNormGrad<T, G>>();
    in_ranges(x_RC.shape.rows, columns, [&](Range r) {
      body.inputs(x_RC.pointer<T>() + r.begin * columns, gain_C.pointer<T>(), stats_R2.pointer<Wide<T>>() + 2 * r.begin,
                  dy_RC.pointer<T>() + r.begin * columns, dx_RC.view.pointer<G>() + r.begin * columns, r.size(), columns, dx_RC.accumulate);
    });
  });
}

void layer_norm_weights(View x_RC, View stats_R2, View dy_RC, Grad dgain_C, Grad dbias_C) {
  same_shape("layer_norm_weights", x_RC, dy_RC), same_shape("layer_norm_weights", dgain_C.view, dbias_C.view);
  same_element("layer_norm_weights", x_RC, dy_RC), same_element("layer_norm_weights", dgain_C.view, dbias_C.view);
  check("layer_norm_weights", x_RC, dgain_C.view, stats_R2);
  if (const Stream* s = gpu_stream("layer_norm_weights", {x_RC, stats_R2, dy_RC, dgain_C.view, dbias_C.view}))
    return cuda::layer_norm_weights(x_RC, stats_R2, dy_RC, dgain_C, dbias_C, View{}, s->handle());
  const Extent rows = x_RC.shape.rows, columns = x_RC.shape.columns;
  dispatch_grad("layer_norm_weights", x_RC.element, dgain_C.view.element, [&](auto zero, auto grad_zero) {
    using T = decltype(zero);
    using G = decltype(grad_zero);
    const auto& body = pick<LayerNormGrad<T, G>>();
    in_ranges(columns, rows, [&](Range r) {
      body.weights(x_RC.pointer<T>(), stats_R2.pointer<Wide<T>>(), dy_RC.pointer<T>(), dgain_C.view.pointer<G>(), dgain_C.accumulate,
                   dbias_C.view.pointer<G>(), dbias_C.accumulate, rows, columns, r.begin, r.end);
    });
  });
}

}  // namespace dsx::kernels
