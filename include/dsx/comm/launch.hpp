// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Starts the ranks of a program: threads, or the processes that mpirun or srun have started.
///
///     int main(int argc, char** argv) {
///       return dsx::run_launched(argc, argv, {.ranks = 2}, [](std::shared_ptr<dsx::Transport> world) {
///         std::printf("rank %zu of %zu\n", world->rank(), world->size());
///       });
///     }
///
/// A rank that throws fails all: the first failure is what the program prints and ends with.
#pragma once

#include <dsx/comm/transports.hpp>

#include <functional>

namespace dsx {

using RankMain = std::function<void(std::shared_ptr<Transport> world)>;
/// The value of a variable, or nullptr; as std::getenv.
using Environment = std::function<const char*(const char* name)>;

/// Runs `main` on one new thread a rank. The first failure frees the other ranks and is rethrown when all have ended:
/// an Error keeps its number, and says which rank threw it where the error is that rank's own.
void run_threads(Extent ranks, const RankMain& main, ThreadOptions options = {});

struct LaunchOptions {
  Extent ranks = 0;                         // threads; 0: one, or as many processes as the launcher started
  std::chrono::milliseconds time_limit{0};  // of one wait for other ranks; 0: none
  Place place = Place::cpu;                 // where kernels run
  Extent device_bytes = 0;                  // the most that a rank's device holds, told apart from the host on the CPU; 0: no bound
  bool checked = true;                      // compare all ranks' calls also where the transport doesn't (MPI); false saves a small message a call
  Environment environment{};                // empty: the process's own
};

/// How a program's ranks come to be, by the launcher's variables.
struct Launch {
  enum class By { threads, mpi } by = By::threads;
  Extent ranks = 1;  // of all processes, as the launcher says
};

/// Reads the variables of mpirun (OMPI_COMM_WORLD_SIZE) and of srun with PMIx. Refuses torchrun's WORLD_SIZE > 1 (dsx-E701, with the
/// line to type; arguments[0] is the program), thread ranks among several processes (dsx-E702) and srun without PMIx (dsx-E705).
Launch choose_launch(Extent asked_ranks, const Environment& environment, std::span<const char* const> arguments = {});

/// dsx-E703 where the launcher's world isn't the communicator's: N worlds of one would all train alone.
void check_launch(const Launch& launch, Extent world_size);

/// Runs `main` on every rank and returns the process's exit code. An error is printed once, as one line on stderr.
int run_launched(int argc, char** argv, const LaunchOptions& options, const RankMain& main);

}  // namespace dsx
