// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Threads as ranks, and the choice between them and a launcher's processes.
///
///     const Launch launch = choose_launch(0, [](const char* name) { return std::getenv(name); });
#include <dsx/comm/launch.hpp>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

namespace dsx {
namespace {

/// An error's text without its number.
std::string_view text_of(const Error& e) {
  const std::string_view what = e.what();
  return what.substr(what.find(": ") + 2);
}
bool names_its_ranks(int number) { return 500 <= number && number < 600; }

/// What is rethrown of a failure on `rank`. What isn't a std::exception (a test's own) stays as it is.
std::exception_ptr with_rank(std::exception_ptr failure, Rank rank, Extent ranks) {
  if (ranks == 1) return failure;
  try {
    std::rethrow_exception(failure);
  } catch (const Error& e) {
    if (names_its_ranks(e.number())) return failure;
    return std::make_exception_ptr(Error{e.number(), concat("rank ", rank, ": ", text_of(e))});
  } catch (const std::exception& e) {
    return std::make_exception_ptr(Error{501, concat("rank ", rank, " failed: ", e.what())});
  } catch (...) {
    return failure;
  }
}

std::string reason(std::exception_ptr failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "it threw something that isn't a std::exception";
  }
}

/// A variable as a number; nothing where it isn't set.
std::optional<Extent> number_in(const Environment& environment, const char* name) {
  const char* value = environment(name);
  if (!value) return std::nullopt;
  const std::string_view text = value;
  if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != text.npos)
    fail<704>(name, "=", text, " isn't a number of ranks");
  return Extent(std::strtoul(value, nullptr, 10));
}
std::optional<Extent> world_size_in(const Environment& environment, const char* name) {
  const auto size = number_in(environment, name);
  if (size == Extent(0)) fail<704>(name, "=0 isn't a number of ranks");
  return size;
}

/// Of several processes that refuse to start, the first one says why.
void print_once(const std::string& line, const Environment& environment) {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID", "RANK"})
    if (const char* rank = environment(name)) {
      if (std::string_view{rank} == "0") break;
      std::this_thread::sleep_for(std::chrono::milliseconds{300});  // launchers end all processes when one ends
      return;
    }
  std::fprintf(stderr, "%s\n", line.c_str());
}

/// One MPI process.
int run_process(const Launch& launch, const LaunchOptions& options, const RankMain& main) {
  auto world = mpi_transport_world({.time_limit = options.time_limit});
  if (const Extent size = world->size(); launch.ranks != size) {
    world.reset();  // nobody waits in a world that isn't the launcher's: it ends in peace
    check_launch(launch, size);
  }
  try {
    main(options.checked ? checked(world) : world);
    return 0;
  } catch (...) {
    mpi_end_failed(reason(with_rank(std::current_exception(), world->rank(), world->size())));
  }
}

}  // namespace

void run_threads(Extent ranks, const RankMain& main, ThreadOptions options) {
  ThreadWorld world{ranks, options};
  std::mutex mutex;
  std::exception_ptr first;
  {
    std::vector<std::jthread> threads;
    for (Rank r = 0; r < ranks; ++r)
      threads.emplace_back([&, r] {
        try {
          main(ranks == 1 ? self_transport() : world.transport(r));
        } catch (...) {
          const auto failure = with_rank(std::current_exception(), r, ranks);
          const std::string why = reason(failure);
          {
            std::lock_guard lock{mutex};
            if (!first) first = failure;
          }
          world.abort(why);
        }
        world.leave(r);
      });
  }
  if (first) std::rethrow_exception(first);
}

Launch choose_launch(Extent asked_ranks, const Environment& environment, std::span<const char* const> arguments) {
  std::optional<Extent> processes = world_size_in(environment, "OMPI_COMM_WORLD_SIZE");
  const auto tasks = world_size_in(environment, "SLURM_STEP_NUM_TASKS");
  if (!processes && environment("PMIX_RANK")) processes = tasks ? tasks : world_size_in(environment, "SLURM_NTASKS");
  if (!processes && tasks.value_or(1) > 1)
    fail<705>("srun started ", *tasks, " tasks without PMIx, so each would train alone; type: srun --mpi=pmix -n ", *tasks, " ...");
  if (!processes && environment("RANK")) {
    if (const auto world = world_size_in(environment, "WORLD_SIZE"); world.value_or(1) > 1) {
      std::string command = concat("mpirun -np ", *world);
      for (const char* argument : arguments) command += concat(" ", argument);
      fail<701>("WORLD_SIZE=", *world, " is torchrun's, whose processes dsx can't join; type: ", command);
    }
  }
  if (processes.value_or(1) > 1) {
    if (asked_ranks > 1)
      fail<702>(asked_ranks, " thread ranks in each of ", *processes, " processes; ranks are either threads or processes: leave one of the two out");
    return {Launch::By::mpi, *processes};
  }
  return {Launch::By::threads, std::max(Extent(1), asked_ranks)};
}

void check_launch(const Launch& launch, Extent world_size) {
  if (launch.by == Launch::By::mpi && launch.ranks != world_size)
    fail<703>("the launcher started ", launch.ranks, " processes, but MPI's world has ", world_size,
              "; the launcher and the MPI library that dsx was built with are not the same");
}

int run_launched(int argc, char** argv, const LaunchOptions& options, const RankMain& main) {
  const Environment environment = options.environment ? options.environment : [](const char* name) -> const char* { return std::getenv(name); };
  try {
    const Launch launch = choose_launch(options.ranks, environment, {argv, std::size_t(argc)});
    if (launch.by == Launch::By::mpi) return run_process(launch, options, main);
    run_threads(launch.ranks, main, {.time_limit = options.time_limit});
    return 0;
  } catch (...) {
    print_once(reason(std::current_exception()), environment);
  }
  return 1;
}

}  // namespace dsx
