// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What the place seam asks of a GPU, without CUDA's types: defined in device.cu, or in kernels/host/cuda_absent.cpp,
/// where everything but device_count throws dsx-E801.
///
///     void* stream = cuda::create_stream();
///     cuda::copy(to, from, bytes, stream);
///     cuda::destroy_stream(stream);
#pragma once

#include <dsx/core/shape.hpp>

#include <cstddef>

namespace dsx::cuda {

int device_count();
void select_device(int device);
/// Throws dsx-E801 in a build without CUDA, dsx-E805 on a machine without a GPU.
void require();

void* create_stream();
void destroy_stream(void* stream) noexcept;
void wait(void* stream, void* event);
void synchronize_stream(void* stream);

void* create_event();
void destroy_event(void* event) noexcept;
void record(void* event, void* stream);
bool passed(void* event);
void synchronize_event(void* event);

void* allocate(Extent bytes);
void deallocate(void* memory) noexcept;
/// Memory of the host that a GPU's copy engine reaches.
void* allocate_pinned(Extent bytes);
void deallocate_pinned(void* memory) noexcept;
void copy(void* to, const void* from, Extent bytes, void* stream);
void fill(void* to, std::byte value, Extent bytes, void* stream);

}  // namespace dsx::cuda
