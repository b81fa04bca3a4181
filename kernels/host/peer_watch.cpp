// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Processes of this machine, watched by their file descriptors (Linux 5.3); elsewhere nobody is watched and the launcher alone sees ends.
///
///     watch.start(processes);
#include "peer_watch.hpp"

#include <functional>
#include <string>

#if defined(__linux__)
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace dsx::host {
namespace {

constexpr int reaping_time = 200;    // ms, in which a launcher takes note of the end and will name it
constexpr int asking_time = 200;     // ms, in which a rank that waits asks
constexpr int unwinding_time = 300;  // ms more, for a rank that has asked

}  // namespace

Process this_process() {
  std::string boot;
  std::getline(std::ifstream{"/proc/sys/kernel/random/boot_id"}, boot);
  std::error_code error;
  const std::string space = std::filesystem::read_symlink("/proc/self/ns/pid", error).string();
  if (boot.empty() || space.empty()) return {};
  return {std::hash<std::string>{}(boot + space), ::getpid()};
}

void wait_for_launcher(int milliseconds) noexcept {
  std::signal(SIGTERM, SIG_IGN);
  for (; milliseconds > 0; milliseconds -= 30) {
    ::poll(nullptr, 0, 30);
    if (std::getenv("OMPI_COMM_WORLD_SIZE")) ::kill(::getppid(), SIGCHLD);
  }
}

void PeerWatch::start(std::span<const Process> by_rank) {
  for (Rank r = 0; r < by_rank.size(); ++r) {
    if (by_rank[r].id == 0) continue;
    const long handle = ::syscall(SYS_pidfd_open, pid_t(by_rank[r].id), 0U);
    if (handle < 0) continue;
    handles_.push_back(int(handle)), peers_.emplace_back(r, by_rank[r].id);
  }
  if (handles_.empty()) return;
  stop_ = ::eventfd(0, EFD_CLOEXEC);
  // Signals are for the program's own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread{[this] { run(); }};
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void PeerWatch::stop() noexcept {
  if (!thread_.joinable()) return;
  const std::uint64_t one = 1;
  if (::write(stop_, &one, sizeof one) < 0) return;
  thread_.join();
  for (const int handle : handles_) ::close(handle);
  ::close(stop_);
}

std::optional<Rank> PeerWatch::ended() noexcept {
  const std::int64_t rank = ended_.load(std::memory_order_acquire);
  if (rank == nobody) return std::nullopt;
  asked_ = true;
  return Rank(rank);
}

bool PeerWatch::stopped_within(int milliseconds) const noexcept {
  pollfd stop{stop_, POLLIN, 0};
  return ::poll(&stop, 1, milliseconds) > 0;
}

void PeerWatch::run() noexcept {
  std::vector<pollfd> all{{stop_, POLLIN, 0}};
  for (const int handle : handles_) all.push_back({handle, POLLIN, 0});
  while (::poll(all.data(), nfds_t(all.size()), -1) < 0 && errno == EINTR) {}
  if (all[0].revents) return;
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    if (!all[i + 1].revents) continue;
    const auto [rank, id] = peers_[i];
    for (int waited = 0; waited < reaping_time && ::kill(pid_t(id), 0) == 0; ++waited)
      if (stopped_within(1)) return;
    ended_.store(std::int64_t(rank), std::memory_order_release);
    if (stopped_within(asking_time)) return;
    if (asked_ && stopped_within(unwinding_time)) return;
    wait_for_launcher(300);
    ::_exit(1);
  }
}

}  // namespace dsx::host
#else
namespace dsx::host {

Process this_process() { return {}; }
void wait_for_launcher(int) noexcept {}
void PeerWatch::start(std::span<const Process>) {}
void PeerWatch::stop() noexcept {}
std::optional<Rank> PeerWatch::ended() noexcept { return std::nullopt; }

}  // namespace dsx::host
#endif
