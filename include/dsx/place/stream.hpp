// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A queue of work at one place. On the CPU work is done when the call returns; on a GPU it is a stream of the current device.
///
///     Stream compute{Place::cuda}, copies{Place::cuda};
///     Event ready{Place::cuda};
///     ready.record(copies);
///     compute.wait(ready);                 // what compute gets from now on starts behind what copies had got
#pragma once

#include <dsx/core/place.hpp>

#include <cstddef>

namespace dsx {

class Event;

class Stream {
 public:
  /// dsx-E801 for a GPU in a build without CUDA, dsx-E805 on a machine without one.
  explicit Stream(Place place);
  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&& other) noexcept;
  ~Stream();

  Place place() const { return place_; }
  /// A cudaStream_t; null on the CPU.
  void* handle() const { return handle_; }
  /// A GPU's stream has `step_bytes` of device memory at one address for what differs from step to step (rates, scales): written
  /// in the stream's order, so that a captured graph, which holds the address, stays valid. Null on the CPU.
  void* step_memory() const { return step_memory_; }
  static constexpr std::size_t step_bytes = 256;

  /// Work enqueued from now on starts after the event. The CPU's stream can only let the host wait.
  void wait(const Event& event);
  /// Blocks the host until the queue is empty.
  void synchronize() const;

 private:
  Place place_;
  void* handle_ = nullptr;
  void* step_memory_ = nullptr;
};

/// Kernels that this host thread calls while it lives are enqueued on its stream. Session::launch keeps one.
class [[nodiscard]] LaunchScope {
 public:
  explicit LaunchScope(const Stream& stream) noexcept;
  LaunchScope(const LaunchScope&) = delete;
  LaunchScope& operator=(const LaunchScope&) = delete;
  ~LaunchScope();

 private:
  const Stream* before_;
};
/// The stream of the innermost scope; dsx-E807 where there is none, or it is the CPU's.
const Stream& gpu_launch_stream();

/// 0 in a build without CUDA and on a machine without a usable GPU.
int cuda_device_count();
/// The device on which this host thread makes streams, events and memory from now on.
void select_cuda_device(int device);

}  // namespace dsx
