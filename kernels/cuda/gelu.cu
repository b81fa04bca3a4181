// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// GELU and its pullback: every thread takes packs of 16 bytes at the stride of the grid, and the first threads the tail.
///
///     cuda::gelu(x, y, Gelu::tanh, stream);
///     cuda::gelu_pullback(x, dy, {dx, true}, Gelu::tanh, stream);   // dx += dy gelu'(x)
#include "launchers.hpp"
#include "pack.hpp"

namespace dsx::cuda {
namespace {

/// Calls visit(element, width) for packs, then for single elements, of this thread.
template <int width, class F>
__device__ void for_my_elements(Extent size, F visit) {
  const Extent me = Extent(blockIdx.x) * blockDim.x + threadIdx.x;
  const Extent stride = Extent(gridDim.x) * blockDim.x;
  for (Extent p = me; p < size / width; p += stride) visit.template operator()<width>(p * width);
  if constexpr (width > 1) {
    const Extent tail = size / width * width + me;
    if (tail < size) visit.template operator()<1>(tail);
  }
}

template <Gelu form, class W>
__device__ W activate(W x) {
  if constexpr (form == Gelu::erf) return x * W(0.5) * (1 + error_function(x * W(0.70710678118654752440)));
  const W inner = W(0.79788456080286535588) * (x + W(0.044715) * x * x * x);
  return W(0.5) * x * (1 + hyperbolic_tangent(inner));
}

template <Gelu form, class W>
__device__ W slope(W x) {
  if constexpr (form == Gelu::erf) {
    const W below = W(0.5) * (1 + error_function(x * W(0.70710678118654752440)));
    return below + x * W(0.39894228040143267794) * exponential(W(-0.5) * x * x);
  }
  const W inner = W(0.79788456080286535588) * (x + W(0.044715) * x * x * x);
  const W t = hyperbolic_tangent(inner);
  return W(0.5) * (1 + t) + W(0.5) * x * (1 - t * t) * W(0.79788456080286535588) * (1 + W(3 * 0.044715) * x * x);
}

template <class T, Gelu form>
struct Forward {
  const T* x;
  T* y;
  template <int width>
  __device__ void operator()(Extent i) const {
    const Pack<T, width> in = *packs_of<width>(x + i);
    Pack<T, width> out;
    for (int e = 0; e < width; ++e) out.at[e] = narrow<T>(activate<form>(widen(in.at[e])));
    *packs_of<width>(y + i) = out;
  }
};

template <class T, Gelu form>
struct Pullback {
  const T *x, *dy;
  T* dx;
  bool accumulate;
  template <int width>
  __device__ void operator()(Extent i) const {
    const Pack<T, width> in = *packs_of<width>(x + i), incoming = *packs_of<width>(dy + i);
    Pack<T, width> out;
    if (accumulate) out = *packs_of<width>(dx + i);
    for (int e = 0; e < width; ++e) {
      const Wide<T> d = widen(incoming.at[e]) * slope<form>(widen(in.at[e]));
      out.at[e] = narrow<T>(accumulate ? widen(out.at[e]) + d : d);
    }
    *packs_of<width>(dx + i) = out;
  }
};

template <int width, class F>
__global__ void __launch_bounds__(threads) elementwise_kernel(Extent size, F f) {
  for_my_elements<width>(size, f);
}

template <class T, class F>
void launch_elementwise(Extent size, bool packed, const F& f, StreamHandle stream) {
  if (size == 0) return;
  const Extent width = packed ? full_width<T> : 1, pieces = size / width + size % width;
  const dim3 grid = grid_for(pieces);
  if (packed) launch(elementwise_kernel<full_width<T>, F>, grid, dim3(threads), 0, stream, size, f);
  else launch(elementwise_kernel<1, F>, grid, dim3(threads), 0, stream, size, f);
}

template <class T, Gelu form>
void forward(View x, View y, StreamHandle stream) {
  const Forward<T, form> f{x.address<T>(), y.address<T>()};
  launch_elementwise<T>(x.size(), aligned<full_width<T>>(f.x) && aligned<full_width<T>>(f.y), f, stream);
}

template <class T, Gelu form>
void pullback(View x, View dy, Grad dx, StreamHandle stream) {
  const Pullback<T, form> f{x.address<T>(), dy.address<T>(), dx.view.address<T>(), dx.accumulate};
  launch_elementwise<T>(x.size(), aligned<full_width<T>>(f.x) && aligned<full_width<T>>(f.dy) && aligned<full_width<T>>(f.dx), f, stream);
}

}  // namespace

void gelu(View x, View y, Gelu form, StreamHandle stream) {
  dispatch(x.element, [&](auto zero) {
    using T = decltype(zero);
    if (form == Gelu::tanh) forward<T, Gelu::tanh>(x, y, stream);
    else forward<T, Gelu::erf>(x, y, stream);
  });
}

void gelu_pullback(View x, View dy, Grad dx, Gelu form, StreamHandle stream) {
  dispatch(x.element, [&](auto zero) {
    using T = decltype(zero);
    if (form == Gelu::tanh) pullback<T, Gelu::tanh>(x, dy, dx, stream);
    else pullback<T, Gelu::erf>(x, dy, dx, stream);
  });
}

}  // namespace dsx::cuda
