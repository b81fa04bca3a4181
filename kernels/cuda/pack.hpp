// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Several neighbouring elements that one instruction moves (16 bytes), and arithmetic by the wide type of an element.
///
///     const Pack<bf16, 8> x = packs_of<8>(row)[i];
///     float first = widen(x.at[0]);
///     bf16 back = narrow<bf16>(first);
#pragma once

#include "launch.hpp"

#include <dsx/core/element.hpp>

#ifndef DSX_CUDA_EMULATION
#include <cuda_bf16.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace dsx::cuda {

/// Of kernels that walk over elements at the stride of their grid: the same on each device, so that order never varies.
inline constexpr int threads = 256;
inline constexpr Extent most_blocks = 2048;  // some waves of the largest device
inline dim3 grid_for(Extent pieces) { return dim3(unsigned(std::min((pieces + threads - 1) / threads, most_blocks))); }

/// Elements of T in 16 bytes.
template <class T>
inline constexpr int full_width = int(16 / sizeof(T));

template <class T, int width>
struct alignas(sizeof(T) * width < 16 ? sizeof(T) * width : 16) Pack {
  T at[width];
};

template <int width, class T>
__device__ const Pack<T, width>* packs_of(const T* elements) {
  return reinterpret_cast<const Pack<T, width>*>(elements);
}
template <int width, class T>
__device__ Pack<T, width>* packs_of(T* elements) {
  return reinterpret_cast<Pack<T, width>*>(elements);
}

/// Whether packs of `width` elements may be read from here.
template <int width, class T>
bool aligned(const T* elements) {
  return reinterpret_cast<std::uintptr_t>(elements) % alignof(Pack<T, width>) == 0;
}

inline __device__ float widen(float x) { return x; }
inline __device__ double widen(double x) { return x; }
inline __device__ float widen(bf16 x) {
#ifdef DSX_CUDA_EMULATION
  return x;
#else
  return __uint_as_float(std::uint32_t(x.bits) << 16);
#endif
}

template <class T>
__device__ T narrow(Wide<T> x) {
  if constexpr (!std::is_same_v<T, bf16>) {
    return x;
  } else {
#ifdef DSX_CUDA_EMULATION
    return bf16{x};
#else
    bf16 result;
    result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));  // one instruction
    return result;
#endif
  }
}

// One name for both precisions; double never falls to float.
inline __device__ float root(float x) { return sqrtf(x); }
inline __device__ double root(double x) { return sqrt(x); }
inline __device__ float hyperbolic_tangent(float x) { return tanhf(x); }
inline __device__ double hyperbolic_tangent(double x) { return tanh(x); }
inline __device__ float error_function(float x) { return erff(x); }
inline __device__ double error_function(double x) { return erf(x); }
inline __device__ float exponential(float x) { return expf(x); }
inline __device__ double exponential(double x) { return exp(x); }

}  // namespace dsx::cuda
