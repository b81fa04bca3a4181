// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// How a kernel is launched and gets shared memory, spelled so that the same `.cu` also compiles as C++ under
/// tests/support/cuda_emulation.hpp, which, included first, brings its own forms.
///
///     template <class T> __global__ void sum(const T* x) { DSX_SHARED(T, 32, partial); DSX_DYNAMIC_SHARED(T, row); ... }
///     cuda::launch(sum<float>, dim3(blocks), dim3(256), bytes, stream, x);
#pragma once

#ifndef DSX_CUDA_EMULATION

#include <dsx/core/error.hpp>

#include <cuda_runtime.h>

#include <cstddef>

#define DSX_SHARED(T, count, name) __shared__ T name[count]
#define DSX_DYNAMIC_SHARED(T, name)                                 \
  extern __shared__ __align__(16) unsigned char dsx_shared_bytes[]; \
  T* const name = reinterpret_cast<T*>(dsx_shared_bytes)

namespace dsx::cuda {

/// The parameter by which a device function takes shared memory.
template <class T>
using SharedArray = T*;

/// `stream` is a cudaStream_t. Only what is wrong with the launch itself is known when this returns.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, void* stream, Arguments... arguments) {
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess)
    fail<802>("a kernel launch of ", grid.x, " x ", grid.y, " blocks of ", block.x * block.y, " threads with ", shared_bytes, " shared bytes: ",
              cudaGetErrorName(error), ", ", cudaGetErrorString(error));
}

}  // namespace dsx::cuda

#endif
