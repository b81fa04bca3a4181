// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What dsx::kernels calls for views that lie on a GPU: plain functions with the argument lists of include/dsx/kernels
/// and a stream. Nothing of CUDA shows here. They enqueue and return; they allocate nothing and never wait.
///
///     cuda::layer_norm(x_RC, gain_C, bias_C, 1e-5, y_RC, stats_R2, stream.handle());
///     cuda::layer_norm_weights(x_RC, stats_R2, dy_RC, dgain_C, dbias_C, scratch, stream.handle());
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/tensor/view.hpp>

namespace dsx::cuda {

/// A cudaStream_t; null is the device's default stream.
using StreamHandle = void*;

/// y, dx: the element of x. Gain and bias: the element of x, or f32 beside bf16. stats_R2: mean and reciprocal deviation in wide(element).
void layer_norm(View x_RC, View gain_C, View bias_C, double epsilon, View y_RC, View stats_R2, StreamHandle stream);
void layer_norm_inputs(View x_RC, View gain_C, View stats_R2, View dy_RC, Grad dx_RC, StreamHandle stream);
/// Sums over rows in an order that depends on the shape alone. `scratch` has the shape that layer_norm_scratch names, in wide(element);
/// a view without memory makes one block of threads sum all rows of its columns, which is slower and needs none.
void layer_norm_weights(View x_RC, View stats_R2, View dy_RC, Grad dgain_C, Grad dbias_C, View scratch, StreamHandle stream);
Shape layer_norm_scratch(Shape x_RC);

void gelu(View x, View y, Gelu form, StreamHandle stream);
void gelu_pullback(View x, View dy, Grad dx, Gelu form, StreamHandle stream);

/// What changes from step to step, in device memory, so that a captured graph stays valid.
struct StepState {
  double rate = 0;
  double scale = 1;                           // of gradients: clipping, loss scale, mean over ranks
  double correction_1 = 1, correction_2 = 1;  // 1 - beta^step
  std::uint64_t skip = 0;                     // nonzero: gradients overflowed, weights and states stay
};
struct AdamWConstants {
  double beta_1 = 0.9, beta_2 = 0.999, epsilon = 1e-8, decay = 0;
};
/// Writes *state, which lies in device memory, in the stream's order. The numbers travel as the kernel's argument, so that no buffer of
/// the host has to stay as it is meanwhile. A captured step leaves this call outside: it precedes each replay.
void set(StepState* state, const StepState& now, StreamHandle stream);
/// `state` points into device memory. Master and moments: f32, or f64; gradient: as master, or bf16 beside f32. `weights` gets the
/// bf16 result; a view without memory, or of master itself, gets nothing.
void adamw(const StepState* state, const AdamWConstants& constants, View master, View gradient, View first, View second, View weights,
           StreamHandle stream);

}  // namespace dsx::cuda
