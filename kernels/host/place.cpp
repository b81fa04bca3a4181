// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Streams, events and memory of both places: the CPU's here, the GPU's behind kernels/cuda/device.hpp.
///
///     Stream stream{Place::cpu};
///     fill(memory, std::byte{0}, bytes, stream);   // done when it returns
#include "../cuda/device.hpp"

#include <dsx/core/on_exception.hpp>
#include <dsx/place/event.hpp>
#include <dsx/place/memory_resource.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace dsx {

Stream::Stream(Place place) : place_{place} {
  if (place == Place::cpu) return;
  cuda::require();
  handle_ = cuda::create_stream();
  const OnException destroy{[&] { cuda::destroy_stream(handle_); }};
  step_memory_ = cuda::allocate(step_bytes);
}
Stream::Stream(Stream&& other) noexcept
    : place_{other.place_}, handle_{std::exchange(other.handle_, nullptr)}, step_memory_{std::exchange(other.step_memory_, nullptr)} {}
Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(place_, other.place_);
  std::swap(handle_, other.handle_);
  std::swap(step_memory_, other.step_memory_);
  return *this;
}
Stream::~Stream() {
  if (!handle_) return;
  cuda::deallocate(step_memory_);
  cuda::destroy_stream(handle_);
}
void Stream::wait(const Event& event) {
  if (event.place() == Place::cpu) return;  // passed long ago
  if (place_ == Place::cuda) cuda::wait(handle_, event.handle());
  else event.synchronize();
}
void Stream::synchronize() const {
  if (place_ == Place::cuda) cuda::synchronize_stream(handle_);
}

namespace {
thread_local const Stream* launch_stream = nullptr;
}

LaunchScope::LaunchScope(const Stream& stream) noexcept : before_{std::exchange(launch_stream, &stream)} {}
LaunchScope::~LaunchScope() { launch_stream = before_; }
const Stream& gpu_launch_stream() {
  if (!launch_stream || launch_stream->place() != Place::cuda)
    fail<807>("a kernel is called for values on a GPU, but ", launch_stream ? "in a stream of the CPU" : "outside of every launch",
              "; call it through session.launch(), or keep a LaunchScope");
  return *launch_stream;
}

int cuda_device_count() { return cuda::device_count(); }
void select_cuda_device(int device) {
  cuda::require();
  cuda::select_device(device);
}

Event::Event(Place place) : place_{place} {
  if (place == Place::cpu) return;
  cuda::require();
  handle_ = cuda::create_event();
}
Event::Event(Event&& other) noexcept : place_{other.place_}, handle_{std::exchange(other.handle_, nullptr)} {}
Event& Event::operator=(Event&& other) noexcept {
  std::swap(place_, other.place_);
  std::swap(handle_, other.handle_);
  return *this;
}
Event::~Event() {
  if (handle_) cuda::destroy_event(handle_);
}
void Event::record(const Stream& stream) {
  if (stream.place() == place_) {
    if (place_ == Place::cuda) cuda::record(handle_, stream.handle());
  } else {
    stream.synchronize();
    synchronize();  // of what it was recorded in before
  }
}
bool Event::passed() const { return place_ == Place::cpu || cuda::passed(handle_); }
void Event::synchronize() const {
  if (place_ == Place::cuda) cuda::synchronize_event(handle_);
}

namespace {

constexpr Extent page = 4096;
constexpr Extent big = 256 * 1024;  // from here on pages come straight from the kernel, zero and untouched

bool is_mapped(Extent bytes) { return bytes >= big; }

void* allocate_on_host(Extent bytes, Extent alignment) {
  if (!is_mapped(bytes)) {
    const Extent whole = std::max<Extent>(alignment, sizeof(void*));
    if (void* memory = std::aligned_alloc(whole, round_up(std::max<Extent>(bytes, 1), whole))) return memory;
  } else if (bytes <= Extent(-1) / 2) {
    // Cut an aligned piece out of a larger mapping, so that deallocate needs no more than its address and size.
    const Extent spare = alignment > page ? alignment : 0, length = round_up(bytes, page);
    void* const mapped = mmap(nullptr, length + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped != MAP_FAILED) {
      std::byte* const begin = static_cast<std::byte*>(mapped);
      std::byte* const memory = begin + (spare > 0 ? (alignment - reinterpret_cast<std::uintptr_t>(begin) % alignment) % alignment : 0);
      std::byte* const end = begin + length + spare;
      if (memory > begin) munmap(begin, std::size_t(memory - begin));
      if (end > memory + length) munmap(memory + length, std::size_t(end - memory) - length);
      return memory;
    }
  }
  fail<803>(bytes, " bytes of memory can't be had from the operating system");
}

}  // namespace

void* MemoryResource::allocate(Extent bytes, Extent alignment) {
  if (place_ == Place::cpu && !pinned_) return allocate_on_host(bytes, alignment);
  if (const Extent most = alignment_at(Place::cuda); alignment > most)
    fail<803>(bytes, " bytes aligned to ", alignment, " can't be had from the CUDA runtime, which aligns to ", most);
  return pinned_ ? cuda::allocate_pinned(bytes) : cuda::allocate(bytes);
}

void MemoryResource::deallocate(void* memory, Extent bytes) noexcept {
  if (!memory) return;
  if (pinned_)
    cuda::deallocate_pinned(memory);
  else if (place_ == Place::cuda)
    cuda::deallocate(memory);
  else if (is_mapped(bytes)) munmap(memory, round_up(bytes, page));
  else std::free(memory);
}

MemoryResource& resource(Place place, Tier tier) {
  static MemoryResource cpu{Place::cpu}, pinned{Place::cpu, true}, gpu{Place::cuda};
  if (tier == Tier::disk) fail<808>("what rests on the disk has no address; read it into memory of the host or the device");
  if (place == Place::cpu) return cpu;
  cuda::require();
  return tier == Tier::host ? pinned : gpu;
}

void copy(void* to, const void* from, Extent bytes, const Stream& stream) {
  if (bytes == 0) return;
  if (stream.place() == Place::cuda) cuda::copy(to, from, bytes, stream.handle());
  else std::memmove(to, from, bytes);
}

void fill(void* to, std::byte value, Extent bytes, const Stream& stream) {
  if (bytes == 0) return;
  if (stream.place() == Place::cuda) cuda::fill(to, value, bytes, stream.handle());
  else std::memset(to, int(value), bytes);
}

void copy(View to, View from, const Stream& stream) {
  if (to.size() != from.size())
    fail<301>("a copy of ", from.shape.rows, " x ", from.shape.columns, " elements to ", to.shape.rows, " x ", to.shape.columns);
  if (to.element != from.element)
    fail<405>("a copy between places keeps the element; it can't turn ", name_of(from.element), " into ", name_of(to.element));
  if (stream.place() == Place::cpu && (to.place != Place::cpu || from.place != Place::cpu))
    fail<807>("a copy from ", name_of(from.place), " to ", name_of(to.place), " is enqueued in a stream of the CPU; a GPU's is needed");
  copy(to.data, from.data, to.bytes(), stream);
}

}  // namespace dsx
