// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Stands in for kernels/cuda in builds without CUDA: no device is counted, and whoever asks for one learns why he gets none.
///
///     Stream{Place::cuda};   // throws dsx-E801
#include "../cuda/device.hpp"
#include "../cuda/launchers.hpp"

#include <dsx/core/error.hpp>

namespace dsx::cuda {
namespace {

[[noreturn]] void refuse() { fail<801>("this build has no CUDA; configure with -DDSX_ENABLE_CUDA=ON where nvcc is installed"); }

}  // namespace

int device_count() { return 0; }
void select_device(int) { refuse(); }
void require() { refuse(); }

void* create_stream() { refuse(); }
void destroy_stream(void*) noexcept {}
void wait(void*, void*) { refuse(); }
void synchronize_stream(void*) { refuse(); }

void* create_event() { refuse(); }
void destroy_event(void*) noexcept {}
void record(void*, void*) { refuse(); }
bool passed(void*) { refuse(); }
void synchronize_event(void*) { refuse(); }

void* allocate(Extent) { refuse(); }
void deallocate(void*) noexcept {}
void* allocate_pinned(Extent) { refuse(); }
void deallocate_pinned(void*) noexcept {}
void copy(void*, const void*, Extent, void*) { refuse(); }
void fill(void*, std::byte, Extent, void*) { refuse(); }

void layer_norm(View, View, View, double, View, View, StreamHandle) { refuse(); }
void layer_norm_inputs(View, View, View, View, Grad, StreamHandle) { refuse(); }
void layer_norm_weights(View, View, View, Grad, Grad, View, StreamHandle) { refuse(); }
Shape layer_norm_scratch(Shape) { refuse(); }
void gelu(View, View, Gelu, StreamHandle) { refuse(); }
void gelu_pullback(View, View, Grad, Gelu, StreamHandle) { refuse(); }
void set(StepState*, const StepState&, StreamHandle) { refuse(); }
void adamw(const StepState*, const AdamWConstants&, View, View, View, View, View, StreamHandle) { refuse(); }

}  // namespace dsx::cuda
