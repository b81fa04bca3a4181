// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Processes that fail in the way their argument names; what each rank caught goes to stdout, with the time since the event.
///
///     return mpi_faults(argc, argv);      // mpirun -np 3 program desync
#pragma once

#include <dsx/comm/mesh.hpp>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <thread>
#include <unistd.h>

namespace mpi_faults {

using namespace dsx;
using std::chrono::milliseconds;

inline View view(std::vector<float>& x) { return {x.data(), {x.size(), 1}}; }
inline long now() { return long(std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count()); }
/// The clock is the machine's: who started the job measures how soon after it the job ends.
inline void event(long in_milliseconds = 0) {
  std::printf("event at %ld\n", now() + in_milliseconds);
  std::fflush(stdout);
}

inline long resident_kilobytes() {
  long total = 0, resident = 0;
  std::ifstream{"/proc/self/statm"} >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE) / 1024;
}

/// Meshes that come and go on all ranks, and groups that don't everywhere at once.
inline void meshes(const std::shared_ptr<Transport>& world) {
  Session session{world};
  const Rank rank = session.rank();
  const Extent ranks = session.ranks();
  Extent wrong = 0;
  const auto works = [&](const Communicator& all) {
    std::vector<float> x(3, float(all.rank() + 1));
    all.all_reduce(view(x)).wait();
    wrong += x[2] != float(ranks * (ranks + 1) / 2);
  };
  std::int64_t cost = 0;
  long before = 0;
  int made = 0;
  for (; made < 5'000 && cost < 32'768; ++made) {  // MPI crashes or hangs some time after
    const Mesh mesh{session, {.data = ranks}};
    works(made % 2 ? mesh.world() : mesh.along(Axes::data));
    if (made == 100) before = resident_kilobytes();
    if (made % 100 != 99 || before == 0) continue;
    cost = resident_kilobytes() - before;
    mesh.world().all_reduce({&cost, {1, 1}, Element::i64}, Combine::max).wait();
  }
  std::printf("%d meshes cost %lld KiB\n", made, static_cast<long long>(cost));

  // Rank 0 unwinds alone and goes on: its groups have gone before those of the others, which still wait there for a sum.
  std::optional<Mesh> kept;
  std::vector<float> unsummed(5);
  Lease vain;
  try {
    kept.emplace(session, Degrees{.data = ranks});
    if (rank == 0) throw std::runtime_error{"not told to anybody"};
    vain = kept->along(Axes::data).all_reduce(view(unsummed));
  } catch (const std::runtime_error&) {
    kept.reset();
  }
  for (int i = 0; i < 3; ++i) {
    const Mesh mesh{session, {.data = ranks}};
    works(mesh.world()), works(mesh.along(Axes::data));
  }

  // A message that was sent to a group and that nobody took is no message of the next group of these ranks.
  std::vector<Rank> all(ranks);
  for (Rank r = 0; r < ranks; ++r) all[r] = r;
  for (float round = 0; round < 3; ++round) {
    const Communicator group{session.world()->among(all), Axes::data};
    std::vector<float> x(1, round), y(1), left(1, -1.F);
    if (rank == 0) group.send(view(x), 1).wait(), group.send(view(left), 1).wait();
    if (rank == 1) group.receive(view(y), 0).wait(), wrong += y[0] != round;
    session.world()->among({rank});
  }
  std::printf("of what came, %zu wrong\n", wrong);
}

inline void run(const std::string& fault, const std::shared_ptr<Transport>& world) {
  const Communicator all{world, Axes::data};
  const Rank rank = all.rank();
  std::vector<float> x(8), y(100'000);
  all.barrier();
  if (fault == "none") all.all_reduce(view(x)).wait();
  if (fault == "meshes") meshes(world);
  if (fault == "desync") {
    event();
    if (rank == 1) all.all_reduce(view(x).part({0, 3})).wait();
    else all.all_reduce(view(x)).wait();
  }
  if (fault == "throw") {  // the others wait in a collective, in a receive, or compute
    const Lease pending = all.all_reduce(view(y));
    if (rank == 1) event(), fail<308>("rank 1 stops");
    if (rank == 0) all.barrier();
    if (rank == 2) all.receive(view(x), 1).wait();
    if (rank > 2) std::this_thread::sleep_for(milliseconds{200}), all.barrier();
  }
  if (fault == "rows between messages") {  // sent before the rows, received after them
    std::vector<float> in(all.size(), float(rank)), out(in), word{-1.F}, heard(1);
    const std::vector<Extent> ones(all.size(), 1);
    Lease sent = rank == 0 ? all.send(view(word), 1) : Lease{};
    all.all_to_all(view(in), ones, view(out), ones).wait();
    if (rank == 1) all.receive(view(heard), 0).wait();
    sent.wait();
    Extent wrong = rank == 1 && heard[0] != -1.F;
    for (Rank r = 0; r < all.size(); ++r) wrong += out[r] != float(r);
    std::printf("of what came, %zu wrong\n", wrong);
  }
  if (fault == "rows" || fault == "late rows") {
    std::vector<Extent> sent(all.size(), 2), received = sent;
    if (fault == "rows" && rank == 1) sent[0] = 1;
    if (fault == "late rows" && rank == 1) std::this_thread::sleep_for(milliseconds{10'000});
    event(fault == "rows" ? 0 : 300);
    all.all_to_all(view(y).rows({0, 100}), sent, view(y).rows({100, 200}), received).wait();
  }
  if (fault == "throw in rows") {
    std::vector<Extent> sent(all.size(), 20'000), received = sent;
    std::vector<float> z(100'000);
    const Lease pending = all.all_to_all(view(y), sent, view(z), received);
    if (rank == 1) event(), fail<308>("rank 1 stops");
    std::vector<float> more(100'000);
    all.all_to_all(view(y), sent, view(more), received).wait();
  }
  if (fault == "all") event(), fail<310>("3 ranks can't be 2 x 2");
  if (fault == "late") {
    if (rank == 1) std::this_thread::sleep_for(milliseconds{10'000});
    event(300);
    all.all_reduce(view(x)).wait();
  }
  if (fault == "elsewhere") {  // rank 1 waits too, in another call
    if (rank == 1) std::this_thread::sleep_for(milliseconds{150}), all.receive(view(x), 0).wait();
    event(300);
    all.all_reduce(view(x)).wait();
  }
  if (fault == "another group") event(), (void)world->among(rank == 0 ? std::vector<Rank>{0, 1} : std::vector<Rank>{0, 1, 2});
  if (fault == "late for a group") {
    if (rank == 1) std::this_thread::sleep_for(milliseconds{10'000});
    event(300), (void)world->among({0, 1, 2});
  }
  if (fault == "exit") {
    if (rank == 1) event(), _exit(3);
    all.all_reduce(view(x)).wait();
  }
  if (fault == "quit") {
    if (rank == 1) event(), std::exit(3);
    all.all_reduce(view(x)).wait();
  }
  if (fault == "killed") {
    if (rank == 1) event(), kill(getpid(), SIGKILL);
    all.all_reduce(view(x)).wait();
  }
  if (fault == "killed while others compute") {  // and heed no SIGTERM, as a trainer does that finishes its step first
    std::signal(SIGTERM, SIG_IGN);
    if (rank == 1) std::this_thread::sleep_for(milliseconds{50}), event(), kill(getpid(), SIGKILL);
    std::this_thread::sleep_for(milliseconds{10'000});
  }
}

inline int main(int argc, char** argv) {
  const std::string fault = argc > 1 ? argv[1] : "none";
  if (fault == "again") {  // MPI's world can't be entered twice
    mpi_transport_world();
    return run_launched(argc, argv, {}, [](std::shared_ptr<Transport>) { mpi_transport_world(); });
  }
  LaunchOptions options{.ranks = argc > 2 ? Extent(std::atol(argv[2])) : 0, .checked = true};
  if (fault == "meshes") options.time_limit = milliseconds{20'000};
  if (fault.starts_with("late") || fault == "elsewhere") options.time_limit = milliseconds{300};
  return run_launched(argc, argv, options, [&](std::shared_ptr<Transport> world) {
    const auto begin = std::chrono::steady_clock::now();
    try {
      run(fault, world);
      std::printf("rank %zu of %zu is done\n", world->rank(), world->size());
    } catch (const Error& e) {
      const auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begin);
      std::printf("rank %zu caught after %ld ms: %s\n", world->rank(), long(took.count()), e.what());
      std::fflush(stdout);
      throw;
    }
  });
}

}  // namespace mpi_faults
