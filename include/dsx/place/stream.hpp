// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A queue of work at one place. On the CPU work is done when the call returns; on a GPU it is a stream of the current device.
///
///     Stream compute{Place::cuda}, copies{Place::cuda};
///     Event ready{Place::cuda};
///     ready.record(copies);
///     compute.wait(ready);                 // what compute gets from now on starts behind what copies had got
#pragma once

#include <cstdint>

namespace dsx {

enum class Place : std::uint8_t;  // tensor/view.hpp
class Event;

class Stream {
 public:
  /// dsx-E801 for a GPU in a build without CUDA, dsx-E802 where there is no device.
  explicit Stream(Place place);
  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&& other) noexcept;
  ~Stream();

  Place place() const { return place_; }
  /// A cudaStream_t; null on the CPU.
  void* handle() const { return handle_; }

  /// Work enqueued from now on starts after the event. The CPU's stream can only let the host wait.
  void wait(const Event& event);
  /// Blocks the host until the queue is empty.
  void synchronize() const;

 private:
  Place place_;
  void* handle_ = nullptr;
};

/// 0 in a build without CUDA and on a machine without a usable GPU.
int cuda_device_count();
/// The device on which this host thread makes streams, events and memory from now on.
void select_cuda_device(int device);

}  // namespace dsx
