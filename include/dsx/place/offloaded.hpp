// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Memory off the device, which nobody can touch but between open() and close(): who reads it elsewhere is stopped by the processor.
///
///     std::unique_ptr<Offloaded> host = offloaded_to_host(Place::cpu);
///     void* moments = host->allocate(1_MiB, 64);                        // zeros, closed
///     void* here = host->open(moments, 1_MiB, Access::update);
///     host->close(moments, 1_MiB, Access::update);
///
/// Opened (memory.hpp) is the scope for it.
#pragma once

#include <dsx/place/memory_resource.hpp>

#include <memory>

namespace dsx {

/// What is done with bytes while they are open; `write` overwrites all of them.
enum class Access : std::uint8_t { read, write, update };

class Offloaded : public MemoryResource {
 public:
  using MemoryResource::MemoryResource;
  /// Whether the address is one of its own.
  virtual bool holds(const void* resting) const = 0;
  /// Where the bytes can be read and written until close(). Calls nest.
  virtual void* open(void* resting, Extent bytes, Access access) = 0;
  virtual void close(void* resting, Extent bytes, Access access) noexcept = 0;
  /// They will be opened soon.
  virtual void ahead(void*, Extent) {}
  /// Returns when all that was closed rests, and throws what went wrong on its way.
  virtual void settle() {}
};

/// Beside the CPU pages that are closed to everybody; beside a GPU pinned memory, which can't be closed.
std::unique_ptr<Offloaded> offloaded_to_host(Place place);

}  // namespace dsx
