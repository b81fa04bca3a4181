// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Processes that fail in the way their argument names; what each rank caught goes to stdout, with the time since the event.
///
///     mpirun -np 3 mpi_faults desync
#include <dsx/comm/launch.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <unistd.h>

using namespace dsx;
using std::chrono::milliseconds;

namespace {

View view(std::vector<float>& x) { return {x.data(), {x.size(), 1}}; }

void run(const std::string& fault, const Communicator& all) {
  const Rank rank = all.rank();
  std::vector<float> x(8), y(100'000);
  all.barrier();
  if (fault == "none") all.all_reduce(view(x)).wait();
  if (fault == "desync") {
    if (rank == 1) all.all_reduce(view(x).part({0, 3})).wait();
    else all.all_reduce(view(x)).wait();
  }
  if (fault == "throw") {  // the others wait in a collective, in a receive, or compute
    const Lease pending = all.all_reduce(view(y));
    if (rank == 1) fail<308>("rank 1 stops");
    if (rank == 0) all.barrier();
    if (rank == 2) all.receive(view(x), 1).wait();
    if (rank > 2) std::this_thread::sleep_for(milliseconds{200}), all.barrier();
  }
  if (fault == "all") fail<310>("3 ranks can't be 2 x 2");
  if (fault == "late") {
    if (rank == 1) std::this_thread::sleep_for(milliseconds{10'000});
    all.all_reduce(view(x)).wait();
  }
  if (fault == "exit") {
    if (rank == 1) _exit(3);
    all.all_reduce(view(x)).wait();
  }
  if (fault == "quit") {
    if (rank == 1) std::exit(3);
    all.all_reduce(view(x)).wait();
  }
  if (fault == "killed") {
    if (rank == 1) kill(getpid(), SIGKILL);
    all.all_reduce(view(x)).wait();
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string fault = argc > 1 ? argv[1] : "none";
  if (fault == "again") {  // MPI's world can't be entered twice
    mpi_transport_world();
    return run_launched(argc, argv, {}, [](std::shared_ptr<Transport>) { mpi_transport_world(); });
  }
  LaunchOptions options{.ranks = argc > 2 ? Extent(std::atol(argv[2])) : 0, .checked = true};
  if (fault == "late") options.time_limit = milliseconds{300};
  return run_launched(argc, argv, options, [&](std::shared_ptr<Transport> world) {
    const auto begin = std::chrono::steady_clock::now();
    try {
      run(fault, Communicator{world, Axes::data});
      std::printf("rank %zu of %zu is done\n", world->rank(), world->size());
    } catch (const Error& e) {
      const auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begin);
      std::printf("rank %zu caught after %ld ms: %s\n", world->rank(), long(took.count()), e.what());
      std::fflush(stdout);
      throw;
    }
  });
}
