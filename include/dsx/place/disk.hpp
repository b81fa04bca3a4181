// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Memory that rests in a file: opened, it is read into a pool of buffers; closed, it is written behind its owner's back.
///
///     std::unique_ptr<Offloaded> disk = offloaded_to_disk({.folder = "/scratch", .resident_bytes = 256_MiB});
///     void* moments = disk->allocate(1_GiB, 64);                        // a place in the file; its address is a name, never memory
///     disk->ahead(moments, 1_MiB);                                      // reading begins
///     void* here = disk->open(moments, 1_MiB, Access::update);          // in the pool; waits for the read
///     disk->close(moments, 1_MiB, Access::update);                      // writing begins
///
/// One file a rank, removed at the end. What a reader finds in the pool, it doesn't read again.
#pragma once

#include <dsx/place/offloaded.hpp>

#include <functional>
#include <string>

namespace dsx {

/// What the disk is asked to do, in the order in which its owner asks, and what he waited for.
struct DiskEvent {
  enum class What : std::uint8_t { read, write, opened, closed } what{};
  const void* resting = nullptr;
  Extent bytes = 0;
};

struct DiskOptions {
  std::string folder{};            // empty: the system's for temporary files
  Extent resident_bytes = 64_MiB;  // the size of the pool: the most that is in memory at once
  Extent threads = 2;              // that read and write
  std::function<void(const DiskEvent&)> observer{};
};

/// dsx-E819 for a folder that isn't there, E820 for one in which no file can be made. Allocation: E821 on a full disk. Opening: E822 if
/// the pool is too small for what is open at once, E823 for a file that was cut off, E824 for an error of the operating system.
std::unique_ptr<Offloaded> offloaded_to_disk(const DiskOptions& options);

}  // namespace dsx
