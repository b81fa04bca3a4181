// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Session: one rank's world, memory and traffic, shared by all models of a program. Dry, it has neither peers nor
/// memory, and the program can't tell.
///
///     Session session{self_transport()};
///     Session plan = Session::dry(0, 64);   // rank 0 of 64, on a laptop
#pragma once

#include <dsx/comm/launch.hpp>
#include <dsx/comm/traffic.hpp>
#include <dsx/comm/transports.hpp>
#include <dsx/place/memory.hpp>

namespace dsx {

class Session {
 public:
  /// The world's calls are counted in `traffic`.
  explicit Session(std::shared_ptr<Transport> world) : memory{world->dry()}, world_{recorded(std::move(world), traffic)} {}
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  static Session dry(Rank rank, Extent ranks) { return Session{dry_transport(rank, ranks)}; }
  Session dry_twin() const { return dry(rank(), ranks()); }

  bool is_dry() const { return memory.dry(); }
  bool is_root() const { return rank() == 0; }
  Rank rank() const { return world_->rank(); }
  Extent ranks() const { return world_->size(); }
  const std::shared_ptr<Transport>& world() const { return world_; }

  Memory memory;
  Traffic traffic{};

  /// The one thing that a dry session skips: the kernel. Arguments are evaluated all the same, for they are the plan.
  template <class Kernel, class... Arguments>
  void launch(Kernel kernel, const Arguments&... arguments) const {
    if (!memory.dry()) kernel(arguments...);
  }

 private:
  std::shared_ptr<Transport> world_;
};

/// Runs main(session) on every rank (threads, or the processes of mpirun or srun) and returns the process's exit code.
template <class Main>
int launch(int argc, char** argv, const LaunchOptions& options, Main main) {
  return run_launched(argc, argv, options, [&](std::shared_ptr<Transport> world) {
    Session session{std::move(world)};
    main(session);
  });
}
template <class Main>
int launch(int argc, char** argv, Main main) {
  return launch(argc, argv, LaunchOptions{}, main);
}

/// Runs main(session) on ranks that are threads; the first failure is rethrown.
template <class Main>
void launch_threads(Extent ranks, Main main, ThreadOptions options = {}) {
  run_threads(ranks, [&](std::shared_ptr<Transport> world) {
    Session session{std::move(world)};
    main(session);
  }, options);
}

}  // namespace dsx
