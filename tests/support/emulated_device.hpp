// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A GPU that isn't there, behind kernels/cuda/device.hpp: Place::cuda works, its kernels run under cuda_emulation.hpp.
///
///     #include "../support/cuda_emulation.hpp"
///     #include "../../kernels/cuda/gelu.cu"              // and all others: the library's own stay out of the program
///     #include "../support/emulated_device.hpp"
///
///     Session session{self_transport(), Place::cuda};
///
/// Streams do their work when somebody waits for them and no earlier. Device memory is the host's, but a View of it keeps
/// code of the host out (dsx-E806). One source of a program includes this header, for its functions aren't inline.
#pragma once

#include "../../kernels/cuda/device.hpp"

#include <dsx/core/error.hpp>

#include <set>

namespace dsx::emulation {

struct Marker {
  Queue* queue = nullptr;
  std::uint64_t at = 0;
};

/// The device's streams and memory, so that a test can count them.
struct Device {
  std::set<Queue*> streams{};
  std::set<void*> blocks{}, pinned{};

  static Device& now() {
    static Device device;
    return device;
  }
  void finish_all() {
    for (Queue* q : streams) q->run_until(q->added());
  }
  void* allocate(std::set<void*>& among, Extent bytes) {
    void* const memory = operator new(bytes, std::align_val_t{256});
    std::memset(memory, 0xC3, bytes);  // whoever forgets to write it notices
    return among.insert(memory), memory;
  }
  void deallocate(std::set<void*>& among, void* memory) {
    finish_all();  // as the CUDA runtime does
    if (among.erase(memory) == 1)
      operator delete(memory, std::align_val_t{256});
    else
      std::abort();
  }
};

inline Queue& queue(void* stream) { return *static_cast<Queue*>(stream); }
inline Marker& marker(void* event) { return *static_cast<Marker*>(event); }

}  // namespace dsx::emulation

namespace dsx::cuda {

int device_count() { return 1; }
void select_device(int device) {
  if (device != 0) fail<802>("the emulated machine has one GPU, not number ", device);
}
void require() {}

void* create_stream() { return *emulation::Device::now().streams.insert(new emulation::Queue).first; }
void destroy_stream(void* stream) noexcept {
  emulation::Queue& queue = emulation::queue(stream);
  queue.run_until(queue.added());
  emulation::Device::now().streams.erase(&queue);
  delete &queue;
}
void synchronize_stream(void* stream) { emulation::queue(stream).run_until(emulation::queue(stream).added()); }

void* create_event() { return new emulation::Marker; }
void destroy_event(void* event) noexcept { delete &emulation::marker(event); }
void record(void* event, void* stream) { emulation::marker(event) = {&emulation::queue(stream), emulation::queue(stream).added()}; }
void wait(void* stream, void* event) {
  if (const auto [queue, at] = emulation::marker(event); queue) emulation::queue(stream).add([queue = queue, at = at] { queue->run_until(at); });
}
void synchronize_event(void* event) {
  if (const auto [queue, at] = emulation::marker(event); queue) queue->run_until(at);
}
/// Each question lets the stream do one more piece of work, so that who asks again and again gets his answer.
bool passed(void* event) {
  const auto [queue, at] = emulation::marker(event);
  if (!queue || queue->done() >= at) return true;
  queue->run_until(queue->done() + 1);
  return false;
}

void* allocate(Extent bytes) { return emulation::Device::now().allocate(emulation::Device::now().blocks, bytes); }
void deallocate(void* memory) noexcept { emulation::Device::now().deallocate(emulation::Device::now().blocks, memory); }
void* allocate_pinned(Extent bytes) { return emulation::Device::now().allocate(emulation::Device::now().pinned, bytes); }
void deallocate_pinned(void* memory) noexcept { emulation::Device::now().deallocate(emulation::Device::now().pinned, memory); }
void copy(void* to, const void* from, Extent bytes, void* stream) {
  emulation::queue(stream).add([=] { std::memmove(to, from, bytes); });
}
void fill(void* to, std::byte value, Extent bytes, void* stream) {
  emulation::queue(stream).add([=] { std::memset(to, int(value), bytes); });
}

}  // namespace dsx::cuda
