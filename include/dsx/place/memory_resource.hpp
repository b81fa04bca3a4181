// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Raw memory of a place, from which arenas are cut, and the copies between places.
///
///     MemoryResource& memory = resource(Place::cpu);
///     void* arena = memory.allocate(2_GiB, 64);     // zero pages: costs address space until it is touched
///     copy(on_gpu, arena, 1_MiB, stream);
///     memory.deallocate(arena, 2_GiB);
#pragma once

#include <dsx/core/shape.hpp>
#include <dsx/place/stream.hpp>

#include <cstddef>

namespace dsx {

class MemoryResource {
 public:
  explicit constexpr MemoryResource(Place place) : place_{place} {}

  Place place() const { return place_; }
  /// Never null, also for 0 bytes. `alignment` is a power of two, on a GPU at most 256. dsx-E803 if memory is short.
  void* allocate(Extent bytes, Extent alignment);
  /// `bytes` as it was allocated.
  void deallocate(void* memory, Extent bytes) noexcept;

 private:
  Place place_;
};

/// The one resource of each place. dsx-E801 for a GPU in a build without CUDA.
MemoryResource& resource(Place place);

/// Bytes, in the stream's order. A GPU's stream takes addresses of both places; the CPU's only its own.
void copy(void* to, const void* from, Extent bytes, Stream& stream);
void fill(void* to, std::byte value, Extent bytes, Stream& stream);

}  // namespace dsx
