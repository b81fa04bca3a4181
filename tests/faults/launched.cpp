// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// How ranks are started: launchers' variables, errors at the top of a program, MPI processes that fail or die.
// timeout: 120
#include "support/mpi_faults.hpp"

#include <dsx/comm/launch.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
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
  long after = 0;  // ms from the event that the processes tell
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
  Ended ended;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  REQUIRE(pipe);
  std::array<char, 4'096> buffer;
  while (const auto n = std::fread(buffer.data(), 1, buffer.size(), pipe)) ended.output.append(buffer.data(), n);
  const int status = pclose(pipe);
  ended.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  constexpr std::string_view mark = "event at ";
  long event = 0;
  for (auto at = ended.output.find(mark); at != ended.output.npos; at = ended.output.find(mark, at + 1))
    event = std::max(event, std::stol(ended.output.substr(at + mark.size())));
  ended.after = mpi_faults::now() - event;
  return ended;
}
/// This program, started again to fail as it is told.
const std::string program = std::filesystem::read_symlink("/proc/self/exe").string() + " --fault ";
const int started_to_fail = [] {
  std::ifstream file{"/proc/self/cmdline"};
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  if (words.size() < 2 || words[1] != "--fault") return 0;
  words.erase(words.begin() + 1);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  std::exit(mpi_faults::main(int(arguments.size()), arguments.data()));
}();

bool without_mpi() { return std::string_view{DSX_MPIRUN}.empty(); }
/// All of a job ends within a second of the event. Where other work keeps the machine busy, one of three runs has to.
Ended mpirun(int processes, const std::string& fault, long bound = 1'000) {
  Ended ended;
  for (int i = 0; i < 3 && (i == 0 || ended.after > bound || ended.slowest() > bound); ++i) {
    ended = run(DSX_MPIRUN " " + std::to_string(processes) + " " + program + "'" + fault + "'");
    MESSAGE(fault << ": code " << ended.code << ", " << ended.after << " ms after the event\n" << ended.output);
  }
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
  const std::string self = program.substr(0, program.find(' '));
  const Ended first = run("RANK=0 WORLD_SIZE=4 " + program + "none"), other = run("RANK=3 WORLD_SIZE=4 " + program + "none");
  CHECK(first.code == 1);
  CHECK(first.output == "dsx-E701: WORLD_SIZE=4 is torchrun's, whose processes dsx can't join; type: mpirun -np 4 " + self + " none\n");
  CHECK(other.code == 1);
  CHECK(other.output.empty());
}

TEST_CASE("a build without MPI says so") {
  if (!without_mpi()) return;
  CHECK_THROWS_WITH_AS(mpi_transport_world(), doctest::Contains("dsx-E511"), Error);
}

TEST_CASE("MPI processes that end well return 0" * doctest::skip(without_mpi())) {
  const Ended ended = run(DSX_MPIRUN " 3 " + program + "none");
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
  CHECK(ended.after < 1'000);
}

TEST_CASE("an MPI process that throws frees those that wait" * doctest::skip(without_mpi())) {
  const Ended ended = mpirun(4, "throw");
  CHECK(ended.code == 1);
  CHECK(ended.count("rank 1 caught after ") == 1);
  CHECK(ended.count(": dsx-E501: another rank failed: dsx-E308: rank 1: rank 1 stops") == 3);
  CHECK(ended.slowest() < 1'000);
  CHECK(ended.after < 1'000);
}

TEST_CASE("MPI processes whose all-to-alls don't fit, or that fail in one, or come too late, end together" * doctest::skip(without_mpi())) {
  const Ended unequal = mpirun(3, "rows");
  CHECK(unequal.code == 1);
  CHECK(unequal.count(" ms: dsx-E516: rank 1 sends rank 0 1 rows in all_to_all of rows of 1 f32 over data at ") == 3);
  CHECK(unequal.count("; rank 0 expects 2 in all_to_all of rows of 1 f32 over data at ") >= 3);
  CHECK(unequal.after < 1'000);
  const Ended thrown = mpirun(4, "throw in rows");
  CHECK(thrown.code == 1);
  CHECK(thrown.count(": dsx-E501: another rank failed: dsx-E308: rank 1: rank 1 stops") == 3);
  CHECK(thrown.after < 1'000);
  const Ended late = mpirun(3, "late rows");
  CHECK(late.code == 1);
  CHECK(late.count(" waited 300 ms in all_to_all of rows of 1 f32 over data at ") >= 2);
  CHECK(late.count("; rank 1 doesn't answer: it computes, or stands still") >= 2);
  CHECK(late.after < 1'000);
}

TEST_CASE("MPI processes don't take rows for messages" * doctest::skip(without_mpi())) {
  const Ended ended = mpirun(3, "rows between messages", 10'000);
  CHECK(ended.code == 0);
  CHECK(ended.count("of what came, 0 wrong") == 3);
}

TEST_CASE("of MPI processes that all fail one prints" * doctest::skip(without_mpi())) {
  const Ended ended = mpirun(3, "all");
  CHECK(ended.code == 1);
  CHECK(ended.count(" ms: dsx-E310") == 3);
  CHECK(ended.count("dsx-E310: rank ") == 1);
  CHECK(ended.count("dsx-E310: rank 0: ") == 1);
  CHECK(ended.after < 1'000);
}

TEST_CASE("an MPI process that waits too long fails all and names the one that computes" * doctest::skip(without_mpi())) {
  const Ended ended = mpirun(3, "late");
  CHECK(ended.code == 1);
  CHECK(ended.count("dsx-E504: rank ") >= 1);
  CHECK(ended.count(" waited 300 ms in all_reduce of 8 f32 over data at ") >= 2);
  CHECK(ended.count("; rank 1 doesn't answer: it computes, or stands still") >= 2);
  CHECK(ended.count("; rank 0 ") + ended.count("; rank 2 ") == 0);
  CHECK(ended.slowest() < 1'300);
  CHECK(ended.after < 1'000);
}

TEST_CASE("an MPI process that waits too long names the one that waits elsewhere, with its call" * doctest::skip(without_mpi())) {
  const Ended ended = mpirun(3, "elsewhere");
  CHECK(ended.code == 1);
  CHECK(ended.count(" waited 300 ms in all_reduce of 8 f32 over data at ") >= 2);
  CHECK(ended.count("; rank 1 hasn't arrived: its last call was receive of 8 f32 from 0 over data at ") >= 2);
  CHECK(ended.count("; rank 0 ") + ended.count("; rank 2 ") == 0);
  CHECK(ended.after < 1'000);
}

TEST_CASE("MPI processes that ask for different groups, or for one too late, are told so" * doctest::skip(without_mpi())) {
  const Ended another = mpirun(3, "another group");
  CHECK(another.code == 1);
  CHECK(another.count("dsx-E510: rank 0 asks for the group {0, 1}, rank 1 for {0, 1, 2}") >= 2);
  CHECK(another.after < 1'000);
  const Ended late = mpirun(3, "late for a group");
  CHECK(late.code == 1);
  CHECK(late.count("dsx-E504: rank 0 waited 300 ms asking for the group {0, 1, 2}; rank 1 hasn't asked") >= 2);
  CHECK(late.after < 1'000);
}

TEST_CASE("an MPI process that exits or is killed ends the job" * doctest::skip(without_mpi())) {
  for (const int processes : {2, 3})
    for (const char* fault : {"exit", "quit", "killed"}) {
      const Ended ended = mpirun(processes, fault);
      CHECK(ended.code == (std::string_view{fault} == "killed" ? 128 + SIGKILL : 3));
      CHECK(ended.count(std::string_view{fault} == "killed" ? "process rank 1" : ",1],1]") == 1);  // mpirun names it
      CHECK(ended.count("dsx-E515: the process of rank 1 has ended, which rank ") >= 1);
      CHECK(ended.count(" saw in all_reduce of 8 f32 over data at ") >= 1);
      CHECK(ended.count("is done") == 0);
      CHECK(ended.after < 1'000);
    }
}

TEST_CASE("an MPI process that is killed ends those that compute" * doctest::skip(without_mpi())) {
  for (const int processes : {2, 3}) {
    const Ended ended = mpirun(processes, "killed while others compute");
    CHECK(ended.code == 128 + SIGKILL);
    CHECK(ended.count("process rank 1") == 1);
    CHECK(ended.after < 1'000);
  }
}

TEST_CASE("5,000 meshes of MPI processes share their communicators" * doctest::skip(without_mpi())) {
  const Ended ended = run(DSX_MPIRUN " 2 " + program + "meshes");
  MESSAGE(ended.output);
  CHECK(ended.code == 0);
  CHECK(ended.count(" of 2 is done") == 2);
  CHECK(ended.count("of what came, 0 wrong") == 2);
  constexpr std::string_view mark = "5000 meshes cost ";
  REQUIRE(ended.count(mark) == 2);
  for (auto at = ended.output.find(mark); at != ended.output.npos; at = ended.output.find(mark, at + 1))
    CHECK(std::stol(ended.output.substr(at + mark.size())) < 4'096);
}

TEST_CASE("srun with PMIx starts the ranks, and a killed one ends the job") {
  if (without_mpi() || run("srun --mpi=list").count("pmix") == 0 || run("timeout 20 srun -n 2 -O true").code != 0) {
    std::puts("SKIPPED: there is no Slurm with PMIx here");
    return;
  }
  const Ended well = run("timeout 60 srun --mpi=pmix -n 2 -O " + program + "none");
  CHECK(well.code == 0);
  CHECK(well.count(" of 2 is done") == 2);
  const Ended killed = run("timeout 60 srun --mpi=pmix -n 3 -O " + program + "killed");
  MESSAGE(killed.after << " ms after the event\n" << killed.output);
  CHECK(killed.code != 0);
  CHECK(killed.count("task 1: Killed") == 1);
  CHECK(killed.count("dsx-E515: the process of rank 1 has ended") >= 1);
  const Ended alone = run("timeout 60 srun --mpi=none -n 2 -O " + program + "none");
  CHECK(alone.code == 1);
  CHECK(alone.count("dsx-E705: srun started 2 tasks without PMIx") == 1);
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
