// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Sees processes of this machine end, while the calling rank waits or computes.
///
///     PeerWatch watch;
///     watch.start(processes);          // by rank; id 0: not watched
///     if (watch.ended()) ...           // asked by the rank's own thread
///     watch.stop();                    // from now on they may end
///
/// A thread sleeps until the kernel reports an end. If the rank's own thread, which can tell its user more, doesn't ask and stop the
/// watch in time, the thread ends the process: a launcher would wait for it, and MPI doesn't interrupt a computation.
#pragma once

#include <dsx/core/shape.hpp>

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

namespace dsx::host {

/// Where a process number means something, and which it is.
struct Process {
  std::uint64_t machine = 0;  // with its namespace of process numbers
  std::int64_t id = 0;
};
Process this_process();

/// Waits for the end of a job that the launcher is about to kill. Open MPI 4's mpirun sleeps for a second before SIGTERM, and for
/// another one before SIGKILL (odls_base_sigkill_timeout). SIGCHLD ends such a sleep and changes nothing else: so it gets some.
void wait_for_launcher(int milliseconds) noexcept;

class PeerWatch {
 public:
  PeerWatch() = default;
  ~PeerWatch() { stop(); }
  PeerWatch(const PeerWatch&) = delete;
  PeerWatch& operator=(const PeerWatch&) = delete;

  void start(std::span<const Process> by_rank);
  void stop() noexcept;
  /// The first rank whose process has ended.
  std::optional<Rank> ended() noexcept;

 private:
  void run() noexcept;
  bool stopped_within(int milliseconds) const noexcept;

  static constexpr std::int64_t nobody = -1;
  int stop_ = -1;  // an eventfd
  std::vector<std::pair<Rank, std::int64_t>> peers_{};
  std::vector<int> handles_{};
  std::atomic<std::int64_t> ended_{nobody};
  std::atomic<bool> asked_{false};
  std::thread thread_{};
};

}  // namespace dsx::host
