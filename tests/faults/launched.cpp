// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// How ranks are started: launchers' variables, errors at the top of a program, MPI processes that fail or die.
// needs: mpi_faults
// timeout: 120
#include <dsx/comm/launch.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <sys/wait.h>

using namespace dsx;

namespace {

Environment environment(std::map<std::string, std::string> variables) {
  const auto kept = std::make_shared<std::map<std::string, std::string>>(std::move(variables));
  return [kept](const char* name) -> const char* {
    const auto found = kept->find(name);
    return found == kept->end() ? nullptr : found->second.c_str();
  };
}
std::string refusal(Extent ranks, std::map<std::string, std::string> variables) {
  static constexpr const char* arguments[] = {"./train", "--steps", "3"};
  try {
    choose_launch(ranks, environment(std::move(variables)), arguments);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}
bool is(const Launch& launch, Launch::By by, Extent ranks) { return launch.by == by && launch.ranks == ranks; }

struct Ended {
  int code = 0;
  std::string output{};
  long milliseconds = 0;
  Extent count(std::string_view text) const {
    Extent n = 0;
    for (auto at = output.find(text); at != output.npos; at = output.find(text, at + 1)) ++n;
    return n;
  }
  /// The longest time that a rank needed until it caught its error.
  long slowest() const {
    constexpr std::string_view mark = " caught after ";
    long most = -1;
    for (auto at = output.find(mark); at != output.npos; at = output.find(mark, at + 1))
      most = std::max(most, std::stol(output.substr(at + mark.size())));
    return most;
  }
};
Ended run(const std::string& command) {
  const auto begin = std::chrono::steady_clock::now();
  Ended ended;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  REQUIRE(pipe);
  std::array<char, 4'096> buffer;
  while (const auto n = std::fread(buffer.data(), 1, buffer.size(), pipe)) ended.output.append(buffer.data(), n);
  const int status = pclose(pipe);
  ended.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  ended.milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin).count();
  return ended;
}
const std::string program = DSX_BINARY_DIR "/tests/programs/mpi_faults ";
bool without_mpi() { return std::string_view{DSX_MPIRUN}.empty(); }
Ended mpirun(int processes, const std::string& arguments) {
  const Ended ended = run(DSX_MPIRUN " " + std::to_string(processes) + " " + program + arguments);
  MESSAGE(arguments << ": code " << ended.code << " after " << ended.milliseconds << " ms\n" << ended.output);
  return ended;
}

}  // namespace

TEST_CASE("ranks are threads unless a launcher started processes") {
  const auto choose = [](Extent ranks, std::map<std::string, std::string> variables) {
    return choose_launch(ranks, environment(std::move(variables)));
  };
  CHECK(is(choose(0, {}), Launch::By::threads, 1));
  CHECK(is(choose(4, {}), Launch::By::threads, 4));
  CHECK(is(choose(0, {{"OMPI_COMM_WORLD_SIZE", "4"}, {"PMIX_RANK", "2"}, {"WORLD_SIZE", "9"}, {"RANK", "0"}}), Launch::By::mpi, 4));
  CHECK(is(choose(1, {{"OMPI_COMM_WORLD_SIZE", "4"}}), Launch::By::mpi, 4));
  CHECK(is(choose(3, {{"OMPI_COMM_WORLD_SIZE", "1"}}), Launch::By::threads, 3));
  CHECK(is(choose(0, {{"PMIX_RANK", "2"}, {"SLURM_NTASKS", "8"}}), Launch::By::mpi, 8));
  CHECK(is(choose(0, {{"PMIX_RANK", "2"}, {"SLURM_NTASKS", "8"}, {"SLURM_STEP_NUM_TASKS", "6"}}), Launch::By::mpi, 6));
  CHECK(is(choose(2, {{"SLURM_NTASKS", "8"}}), Launch::By::threads, 2));  // a shell inside an allocation, no step
  CHECK(is(choose(2, {{"WORLD_SIZE", "1"}, {"RANK", "0"}}), Launch::By::threads, 2));
  CHECK(is(choose(2, {{"WORLD_SIZE", "8"}}), Launch::By::threads, 2));  // somebody's variable, but no torchrun
}

TEST_CASE("launchers that dsx can't join are refused with the way out") {
  CHECK(refusal(0, {{"WORLD_SIZE", "4"}, {"RANK", "1"}}) ==
        "dsx-E701: WORLD_SIZE=4 is torchrun's, whose processes dsx can't join; type: mpirun -np 4 ./train --steps 3");
  CHECK(refusal(2, {{"OMPI_COMM_WORLD_SIZE", "4"}}).starts_with("dsx-E702: 2 thread ranks in each of 4 processes"));
  CHECK(refusal(0, {{"OMPI_COMM_WORLD_SIZE", "four"}}) == "dsx-E704: OMPI_COMM_WORLD_SIZE=four isn't a number of ranks");
  CHECK(refusal(0, {{"OMPI_COMM_WORLD_SIZE", "0"}}).starts_with("dsx-E704"));
  CHECK(refusal(0, {{"WORLD_SIZE", "-2"}, {"RANK", "0"}}).starts_with("dsx-E704"));
  CHECK(refusal(0, {{"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "1"}}).starts_with("dsx-E705: srun started 4 tasks without PMIx"));
}

TEST_CASE("a launcher's world size must be the communicator's") {
  CHECK_NOTHROW(check_launch({Launch::By::mpi, 4}, 4));
  CHECK_THROWS_WITH_AS(check_launch({Launch::By::mpi, 4}, 1),
                       "dsx-E703: the launcher started 4 processes, but MPI's world has 1; the launcher and the MPI library that dsx was built with "
                       "are not the same",
                       Error);
  CHECK_NOTHROW(check_launch({Launch::By::threads, 4}, 1));
}

TEST_CASE("a launched program returns 0, or 1 after a failure of any rank") {
  char name[] = "program";
  char* arguments[] = {name, nullptr};
  std::atomic<int> ran = 0;
  CHECK(run_launched(1, arguments, {.ranks = 3, .environment = environment({})}, [&](std::shared_ptr<Transport> world) {
          CHECK(world->size() == 3);
          ++ran;
        }) == 0);
  CHECK(ran == 3);
  CHECK(run_launched(1, arguments, {.ranks = 3, .environment = environment({})}, [](std::shared_ptr<Transport> world) {
          if (world->rank() == 2) fail<308>("stops");
        }) == 1);
  CHECK(run_launched(1, arguments, {.environment = environment({})}, [](std::shared_ptr<Transport>) { throw 7; }) == 1);
  CHECK(run_launched(1, arguments, {.environment = environment({{"WORLD_SIZE", "2"}, {"RANK", "1"}})}, [](std::shared_ptr<Transport>) {}) == 1);
}

TEST_CASE("an error is printed once, as one line") {
  const Ended threads = run(program + "all 3");
  CHECK(threads.code == 1);
  CHECK(threads.count("\ndsx-E310: rank ") == 1);
  const Ended first = run("RANK=0 WORLD_SIZE=4 " + program + "none"), other = run("RANK=3 WORLD_SIZE=4 " + program + "none");
  CHECK(first.code == 1);
  CHECK(first.output == "dsx-E701: WORLD_SIZE=4 is torchrun's, whose processes dsx can't join; type: mpirun -np 4 " + program + "none\n");
  CHECK(other.code == 1);
  CHECK(other.output.empty());
}

TEST_CASE("a build without MPI says so") {
  if (!without_mpi()) return;
  CHECK_THROWS_WITH_AS(mpi_transport_world(), doctest::Contains("dsx-E511"), Error);
}

TEST_CASE("MPI processes that end well return 0" * doctest::skip(without_mpi())) {
  const Ended ended = mpirun(3, "none");
  CHECK(ended.code == 0);
  CHECK(ended.count(" of 3 is done") == 3);
  CHECK(ended.count("dsx-E") == 0);
}

TEST_CASE("MPI processes at different calls all name both lines" * doctest::skip(without_mpi())) {
  const Ended ended = mpirun(3, "desync");
  CHECK(ended.code == 1);
  for (const char* rank : {"0", "1", "2"})
    CHECK(ended.count(std::string{"rank "} + rank + " caught after ") == 1);
  CHECK(ended.count(": dsx-E502: rank 0 calls all_reduce of 8 f32 over data at ") == 3);
  CHECK(ended.count("; rank 1 calls all_reduce of 3 f32 over data at ") == 4);
  CHECK(ended.count("\ndsx-E502") <= 1);  // printed once more, at the end of the program
  CHECK(ended.slowest() < 1'000);
}

TEST_CASE("an MPI process that throws frees those that wait" * doctest::skip(without_mpi())) {
  const Ended ended = mpirun(4, "throw");
  CHECK(ended.code == 1);
  CHECK(ended.count("rank 1 caught after ") == 1);
  CHECK(ended.count(": dsx-E501: another rank failed: dsx-E308: rank 1: rank 1 stops") == 3);
  CHECK(ended.slowest() < 1'000);
}

TEST_CASE("of MPI processes that all fail one prints" * doctest::skip(without_mpi())) {
  const Ended ended = mpirun(3, "all");
  CHECK(ended.code == 1);
  CHECK(ended.count(" ms: dsx-E310") == 3);
  CHECK(ended.count("dsx-E310: rank ") == 1);
  CHECK(ended.count("dsx-E310: rank 0: ") == 1);
}

TEST_CASE("an MPI process that waits too long fails all" * doctest::skip(without_mpi())) {
  const Ended ended = mpirun(3, "late");
  CHECK(ended.code == 1);
  CHECK(ended.count("dsx-E504: rank ") >= 1);
  CHECK(ended.count(" waited longer than the time limit in all_reduce of 8 f32 over data at ") >= 2);
  CHECK(ended.slowest() < 1'300);
  CHECK(ended.milliseconds < 9'000);  // long before the late rank wakes
}

TEST_CASE("an MPI process that exits or is killed ends the job" * doctest::skip(without_mpi())) {
  for (const char* fault : {"exit", "quit", "killed"}) {
    const Ended ended = mpirun(3, fault);
    CHECK(ended.code != 0);
    CHECK(ended.count(std::string_view{fault} == "killed" ? "process rank 1" : ",1]") >= 1);  // mpirun names it
    CHECK(ended.count("is done") == 0);
    CHECK(ended.milliseconds < 20'000);
  }
}

TEST_CASE("MPI's world of another size than the launcher's is refused" * doctest::skip(without_mpi())) {
  const Ended ended = run("env OMPI_COMM_WORLD_SIZE=4 " + program + "none");
  CHECK(ended.code == 1);
  CHECK(ended.count("dsx-E703: the launcher started 4 processes, but MPI's world has 1") == 1);
}

TEST_CASE("MPI's world can't be entered twice" * doctest::skip(without_mpi())) {
  const Ended ended = run(program + "again");
  CHECK(ended.code == 1);
  CHECK(ended.count("dsx-E512: MPI's world was finalised") == 1);
}
