// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// AdamW in one pass over a slice: master weights, both moments and the gradient are read once, weights and moments written once.
///
///     cuda::set(state, {.rate = 3e-4, .scale = clip, .correction_1 = 1 - 0.9}, stream);
///     cuda::adamw(state, {.decay = 0.1}, master, gradient, first, second, weights, stream);
///
/// The numbers of the step are read from device memory and derived in double by one thread a block, so that f32 weights
/// don't see a rounded 1 - rate decay, and no other thread divides doubles.
#include "launchers.hpp"
#include "pack.hpp"

namespace dsx::cuda {
namespace {

template <class W, class G>
struct Slice {
  W* master;
  const G* gradient;
  W *first, *second;
  bf16* weights;  // or null
  Extent size;
};
template <class W>
struct Betas {
  W beta_1, rest_1, beta_2, rest_2, epsilon;  // rest = 1 - beta, from double
};
/// What one thread derives for its block.
enum : int { gradient_scale, keep, step_size, root_scale, derived };

template <int width, class W, class G>
__device__ void update(const Slice<W, G>& slice, const Betas<W>& betas, W scale_of_g, W keep_of_w, W size_of_step, W scale_of_root, Extent i) {
  const Pack<G, width> gradient = *packs_of<width>(slice.gradient + i);
  Pack<W, width> master = *packs_of<width>(slice.master + i), first = *packs_of<width>(slice.first + i), second = *packs_of<width>(slice.second + i);
  for (int e = 0; e < width; ++e) {
    const W g = scale_of_g * W(widen(gradient.at[e]));
    first.at[e] = betas.beta_1 * first.at[e] + betas.rest_1 * g;
    second.at[e] = betas.beta_2 * second.at[e] + betas.rest_2 * g * g;
    master.at[e] = keep_of_w * master.at[e] - size_of_step * first.at[e] / (root(second.at[e]) * scale_of_root + betas.epsilon);
  }
  *packs_of<width>(slice.first + i) = first;
  *packs_of<width>(slice.second + i) = second;
  *packs_of<width>(slice.master + i) = master;
  if constexpr (std::is_same_v<W, float>) {
    if (!slice.weights) return;
    Pack<bf16, width> weights;
    for (int e = 0; e < width; ++e) weights.at[e] = narrow<bf16>(master.at[e]);
    *packs_of<width>(slice.weights + i) = weights;
  }
}

template <int width, class W, class G>
__global__ void __launch_bounds__(threads) adamw_kernel(const StepState* state, double decay, Betas<W> betas, Slice<W, G> slice) {
  if (state->skip != 0) return;
  DSX_SHARED(W, derived, numbers);
  if (threadIdx.x == 0) {
    numbers[gradient_scale] = W(state->scale);
    numbers[keep] = W(1 - state->rate * decay);
    numbers[step_size] = W(state->rate / state->correction_1);
    numbers[root_scale] = W(1 / sqrt(state->correction_2));
  }
  __syncthreads();
  const W scale_of_g = numbers[gradient_scale], keep_of_w = numbers[keep], size_of_step = numbers[step_size], scale_of_root = numbers[root_scale];

  const Extent me = Extent(blockIdx.x) * blockDim.x + threadIdx.x;
  const Extent stride = Extent(gridDim.x) * blockDim.x;
  for (Extent p = me; p < slice.size / width; p += stride) update<width>(slice, betas, scale_of_g, keep_of_w, size_of_step, scale_of_root, p * width);
  if constexpr (width > 1) {
    const Extent tail = slice.size / width * width + me;
    if (tail < slice.size) update<1>(slice, betas, scale_of_g, keep_of_w, size_of_step, scale_of_root, tail);
  }
}

__global__ void set_kernel(StepState* state, StepState now) { *state = now; }

template <class W, class G>
void run(const StepState* state, const AdamWConstants& c, View master, View gradient, View first, View second, View weights, StreamHandle stream) {
  const bool copies = weights.data && weights.data != master.data;
  if (copies && !(weights.element == Element::bf16 && std::is_same_v<W, float>))
    fail<405>("AdamW on the GPU casts f32 weights to bf16, not ", name_of(master.element), " to ", name_of(weights.element));
  const Slice<W, G> slice{
      master.address<W>(), gradient.address<G>(), first.address<W>(), second.address<W>(), copies ? weights.address<bf16>() : nullptr, master.size()};
  if (slice.size == 0) return;
  constexpr int width = full_width<W>;
  const bool packed = aligned<width>(slice.master) && aligned<width>(slice.gradient) && aligned<width>(slice.first) && aligned<width>(slice.second) &&
                      aligned<width>(slice.weights);
  const Betas<W> betas{W(c.beta_1), W(1 - c.beta_1), W(c.beta_2), W(1 - c.beta_2), W(c.epsilon)};
  const Extent pieces = packed ? slice.size / width + slice.size % width : slice.size;
  const dim3 grid = grid_for(pieces);
  if (packed) launch(adamw_kernel<width, W, G>, grid, dim3(threads), 0, stream, state, c.decay, betas, slice);
  else launch(adamw_kernel<1, W, G>, grid, dim3(threads), 0, stream, state, c.decay, betas, slice);
}

}  // namespace

void set(StepState* state, const StepState& now, StreamHandle stream) { launch(set_kernel, dim3(1), dim3(1), 0, stream, state, now); }

void adamw(const StepState* state, const AdamWConstants& constants, View master, View gradient, View first, View second, View weights,
           StreamHandle stream) {
  if (master.element == Element::f64 && gradient.element == Element::f64) {
    run<double, double>(state, constants, master, gradient, first, second, weights, stream);
  } else if (master.element == Element::f32 && gradient.element == Element::f32) {
    run<float, float>(state, constants, master, gradient, first, second, weights, stream);
  } else if (master.element == Element::f32 && gradient.element == Element::bf16) {
    run<float, bf16>(state, constants, master, gradient, first, second, weights, stream);
  } else {
    fail<405>("AdamW on the GPU has no kernel for ", name_of(master.element), " weights and ", name_of(gradient.element), " gradients");
  }
}

}  // namespace dsx::cuda
