// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The place seam's GPU side, on the CUDA runtime. Each failed call becomes dsx-E802 with CUDA's own name for it.
///
///     check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
#include "device.hpp"

#include <dsx/core/error.hpp>

#include <cuda_runtime.h>

namespace dsx::cuda {
namespace {

void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // it isn't sticky: the next call starts clean
  fail<802>(call, " failed: ", cudaGetErrorName(error), ", ", cudaGetErrorString(error));
}
cudaStream_t stream_of(void* handle) { return static_cast<cudaStream_t>(handle); }
cudaEvent_t event_of(void* handle) { return static_cast<cudaEvent_t>(handle); }

}  // namespace

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;  // no driver or no device: this machine has none
}
void select_device(int device) { check(cudaSetDevice(device), "cudaSetDevice"); }
void require() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return;
  cudaGetLastError();
  fail<805>("the CUDA runtime finds no GPU on this machine (", error == cudaSuccess ? "no device" : cudaGetErrorString(error),
            "); run on Place::cpu, or plan with a dry session, which needs none");
}

void* create_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return stream;
}
void destroy_stream(void* stream) noexcept { cudaStreamDestroy(stream_of(stream)); }
void wait(void* stream, void* event) { check(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0), "cudaStreamWaitEvent"); }
void synchronize_stream(void* stream) { check(cudaStreamSynchronize(stream_of(stream)), "cudaStreamSynchronize"); }

void* create_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  return event;
}
void destroy_event(void* event) noexcept { cudaEventDestroy(event_of(event)); }
void record(void* event, void* stream) { check(cudaEventRecord(event_of(event), stream_of(stream)), "cudaEventRecord"); }
bool passed(void* event) {
  const cudaError_t error = cudaEventQuery(event_of(event));
  if (error == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  check(error, "cudaEventQuery");
  return true;
}
void synchronize_event(void* event) { check(cudaEventSynchronize(event_of(event)), "cudaEventSynchronize"); }

void* allocate(Extent bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, bytes > 0 ? bytes : 1);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    fail<803>(bytes, " bytes can't be had on the GPU, where ", free, " of ", total, " are free");
  }
  check(error, "cudaMalloc");
  return memory;
}
void deallocate(void* memory) noexcept { cudaFree(memory); }
void* allocate_pinned(Extent bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaMallocHost(&memory, bytes > 0 ? bytes : 1);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail<803>(bytes, " bytes of pinned memory can't be had from the operating system");
  }
  check(error, "cudaMallocHost");
  return memory;
}
void deallocate_pinned(void* memory) noexcept { cudaFreeHost(memory); }
void copy(void* to, const void* from, Extent bytes, void* stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream)), "cudaMemcpyAsync");
}
void fill(void* to, std::byte value, Extent bytes, void* stream) {
  check(cudaMemsetAsync(to, int(value), bytes, stream_of(stream)), "cudaMemsetAsync");
}

}  // namespace dsx::cuda
