// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Session: one rank's world, memory and traffic, shared by all models of a program. Dry, it has neither peers nor
/// memory, and the program can't tell.
///
///     Session session{self_transport()};
///     Session plan = Session::dry(0, 64, Place::cuda);   // rank 0 of 64 on GPUs, planned on a laptop
#pragma once

#include <dsx/comm/launch.hpp>
#include <dsx/comm/traffic.hpp>
#include <dsx/comm/transports.hpp>
#include <dsx/place/memory.hpp>

namespace dsx {

class Session {
 public:
  /// The world's calls are counted in `traffic`. On a GPU: the one that this thread has selected; dsx-E801 or E805 if there is none.
  explicit Session(std::shared_ptr<Transport> world, Place place = Place::cpu, MemoryOptions options = {})
      : compute_{world->dry() ? Place::cpu : place}, memory{place, compute_, world->dry(), options}, world_{recorded(std::move(world), traffic)} {}
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  static Session dry(Rank rank, Extent ranks, Place place = Place::cpu) { return Session{dry_transport(rank, ranks), place}; }
  Session dry_twin() const { return dry(rank(), ranks(), place()); }

  Place place() const { return memory.place(); }
  bool is_dry() const { return memory.dry(); }
  bool is_root() const { return rank() == 0; }
  Rank rank() const { return world_->rank(); }
  Extent ranks() const { return world_->size(); }
  const std::shared_ptr<Transport>& world() const { return world_; }
  /// Where kernels are enqueued. Dry there is none, whatever the place.
  const Stream& compute() const { return compute_; }

 private:
  Stream compute_, host_{Place::cpu};

 public:
  Memory memory;
  Traffic traffic{};

  /// The one thing that a dry session skips: the kernel. Arguments are evaluated all the same, for they are the plan. Where the device has
  /// a bound, dsx-E818 for a view among them that lies elsewhere.
  template <class Kernel, class... Arguments>
  void launch(Kernel kernel, const Arguments&... arguments) const {
    if (memory.dry()) return;
    if (memory.budget()) (check_reach(arguments), ...);
    const LaunchScope scope{memory.at_host() ? host_ : compute_};
    kernel(arguments...);
  }
  /// Elements between tiers or within one. They are there when it returns.
  void move(const View& from, const View& to) const {
    if (memory.dry() || from.size() == 0) return;
    const Opened source{memory, from, Access::read}, target{memory, to, Access::write};
    copy(target.view(), source.view(), compute_);
    compute_.synchronize();
  }

  /// f(elements) on the host, of a buffer on a GPU with a copy that was waited for: for losses, norms and checkpoints, not for what every
  /// unit does.
  template <class F>
  void read(const View& v, F f) const {
    at_host(v, Access::read, f);
  }
  /// The same, and what f has changed is sent back: for starting values.
  template <class F>
  void edit(const View& v, F f) const {
    at_host(v, Access::update, [&](const View& here) {
      f(here);
      if (v.place == Place::cpu) return;
      copy(v, here, compute_);
      compute_.synchronize();
    });
  }

 private:
  template <class F>
  void at_host(const View& v, Access access, F f) const {
    if (memory.dry() || v.size() == 0) return;
    if (v.place == Place::cpu) return f(Opened{memory, v, access}.view());
    const Block staging{resource(v.place, Tier::host), v.bytes()};
    const View here{staging.data(), v.shape, v.element, Place::cpu, nullptr};
    copy(here, v, compute_);
    compute_.synchronize();
    f(here);
  }
  /// Kernels work on the device, those of an update on the host there.
  template <class Argument>
  void check_reach(const Argument& argument) const {
    if constexpr (requires { each_view(argument, [](const View&) {}); })
      each_view(argument, [this](const View& v) { memory.budget()->check(v, memory.at_host()); });
  }
  std::shared_ptr<Transport> world_;
};

/// While it lives, kernels run on the host, with the host's scratch: for what is computed where it rests.
class [[nodiscard]] HostScope {
 public:
  explicit HostScope(Session& session) : memory_{&session.memory}, before_{memory_->at_host()} { memory_->turn_to_host(true); }
  HostScope(const HostScope&) = delete;
  HostScope& operator=(const HostScope&) = delete;
  ~HostScope() { memory_->turn_to_host(before_); }

 private:
  Memory* memory_;
  bool before_;
};

/// Runs main(session) on every rank (threads, or the processes of mpirun or srun) and returns the process's exit code.
template <class Main>
int launch(int argc, char** argv, const LaunchOptions& options, Main main) {
  return run_launched(argc, argv, options, [&](std::shared_ptr<Transport> world) {
    Session session{std::move(world), options.place, {.device_bytes = options.device_bytes}};
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
