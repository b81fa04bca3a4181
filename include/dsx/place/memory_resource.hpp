// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Raw memory of a place, from which arenas are cut, and the copies between places.
///
///     MemoryResource& memory = resource(Place::cpu);
///     void* arena = memory.allocate(2_GiB, 64);     // zero pages: costs address space until it is touched
///     copy(on_gpu, arena, 1_MiB, stream);           // bytes; copy(view, view, stream) looks at places and elements
///     memory.deallocate(arena, 2_GiB);
#pragma once

#include <dsx/place/stream.hpp>
#include <dsx/tensor/view.hpp>

namespace dsx {

/// On what a buffer begins: a cache line on the CPU; on a GPU what cudaMalloc itself keeps to.
constexpr Extent alignment_at(Place place) { return place == Place::cpu ? 64 : 256; }

class MemoryResource {
 public:
  /// Pinned memory is the host's, which a GPU's copy engine reads and writes without a detour.
  explicit constexpr MemoryResource(Place place, bool pinned = false) : place_{place}, pinned_{pinned} {}
  MemoryResource(const MemoryResource&) = delete;
  MemoryResource& operator=(const MemoryResource&) = delete;
  virtual ~MemoryResource() = default;

  /// Who may use the addresses.
  Place place() const { return place_; }
  bool pinned() const { return pinned_; }
  /// Never null, also for 0 bytes. `alignment` is a power of two, on a GPU and pinned at most 256. dsx-E803 if memory is short.
  virtual void* allocate(Extent bytes, Extent alignment);
  /// `bytes` as it was allocated.
  virtual void deallocate(void* memory, Extent bytes) noexcept;

 private:
  Place place_;
  bool pinned_;
};

/// The one resource of each tier that kernels at `place` work with. The device's is memory of that place; the host's is pinned where
/// kernels run on a GPU. dsx-E801 and E805 for a GPU that isn't there, dsx-E808 for the disk, where nothing has an address.
MemoryResource& resource(Place place, Tier tier = Tier::device);

/// Bytes, in the stream's order. A GPU's stream takes addresses of both places; the CPU's only its own. Memory of the host that isn't
/// pinned must stay as it is until the stream has come so far.
void copy(void* to, const void* from, Extent bytes, const Stream& stream);
void fill(void* to, std::byte value, Extent bytes, const Stream& stream);

/// The elements of a view, between places or within one. dsx-E301 and E405 for views that differ in size or element, dsx-E807 for a
/// view on a GPU in a stream of the CPU.
void copy(View to, View from, const Stream& stream);

}  // namespace dsx
