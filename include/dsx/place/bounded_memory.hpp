// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Memory with a bound: one mapping of that size, from which blocks are cut. As a rank's device on a machine without a GPU it makes device
/// and host two budgets, and what lies on the device can be told by its address.
///
///     BoundedMemory device{Place::cpu, 64_MiB};
///     void* weights = device.allocate(1_MiB, 64);    // dsx-E817 where the bound would be passed
///     device.holds(weights, 1_MiB);                  // true
#pragma once

#include <dsx/place/memory_resource.hpp>

#include <vector>

namespace dsx {

class BoundedMemory : public MemoryResource {
 public:
  /// dsx-E818 for another place than the CPU: a GPU has the memory that it has.
  BoundedMemory(Place place, Extent bytes);
  ~BoundedMemory() override;

  void* allocate(Extent bytes, Extent alignment) override;
  /// Null where no free piece is large enough.
  void* try_allocate(Extent bytes, Extent alignment);
  void deallocate(void* memory, Extent bytes) noexcept override;

  Extent bytes() const { return bytes_; }
  Extent taken() const { return taken_; }
  /// dsx-E818 if an argument of a kernel lies elsewhere; of a kernel that runs on the host, if it lies here.
  void check(const View& argument, bool at_host) const;
  bool holds(const void* begin, Extent bytes) const { return offset(begin) <= bytes_ && bytes <= bytes_ - offset(begin); }
  bool meets(const void* begin, Extent bytes) const {
    const auto at = reinterpret_cast<std::uintptr_t>(begin), first = reinterpret_cast<std::uintptr_t>(memory_);
    return at < first + bytes_ && first < at + bytes;
  }

 private:
  /// Addresses below the mapping come out larger than it.
  Extent offset(const void* at) const { return reinterpret_cast<std::uintptr_t>(at) - reinterpret_cast<std::uintptr_t>(memory_); }

  std::byte* memory_;
  Extent bytes_, taken_ = 0;
  std::vector<Range> free_;  // in order, never touching
};

}  // namespace dsx
