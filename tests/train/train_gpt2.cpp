// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: resume faults
// needs: train_gpt2 generate
// timeout: 600
/// The trainer as a program: what it prints, writes and leaves behind when it is stopped, killed or asked for what can't be.
#include "support/trainer_place.hpp"

#include <dsx/io/atomic_file.hpp>
#include <dsx/io/hf_gpt2.hpp>
#include <dsx/train/checkpoints.hpp>
#include <dsx/train/metrics.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>

using namespace dsx;
using test::TrainerPlace, test::programs, test::ProgramResult;

namespace {

/// A process that doesn't outlive its test.
class Child {
 public:
  explicit Child(pid_t process) : process_{process} {}
  ~Child() {
    if (process_ > 0) (void)end(SIGKILL);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  /// Sends a signal, to another process if one is given, and gives the exit code, as a shell would.
  int end(int signal, pid_t receiver = 0) {
    int status = 0;
    ::kill(receiver > 0 ? receiver : process_, signal);
    ::waitpid(std::exchange(process_, 0), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::vector<pid_t> children() const {
    std::vector<pid_t> all;
    for (const auto& thread : std::filesystem::directory_iterator{"/proc/" + std::to_string(process_) + "/task"}) {
      std::ifstream file{thread.path() / "children"};
      for (pid_t child = 0; file >> child;) all.push_back(child);
    }
    return all;
  }

 private:
  pid_t process_;
};

/// The trainer as a process that signals can be sent to, once it has saved something.
pid_t start(const TrainerPlace& place, std::vector<std::string> more, const std::string& launcher = "") {
  std::vector<std::string> words;
  std::string word;
  for (const char c : launcher + " " + programs + "train_gpt2 " + place.flags + " ")
    if (c != ' ') word += c;
    else if (!word.empty()) words.push_back(std::exchange(word, {}));
  words.insert(words.end(), more.begin(), more.end());
  std::vector<char*> arguments;
  for (std::string& w : words) arguments.push_back(w.data());
  arguments.push_back(nullptr);
  const std::string log = place.path("log");
  const pid_t child = ::fork();
  if (child == 0) {
    if (!std::freopen(log.c_str(), "w", stdout) || ::dup2(1, 2) < 0) ::_exit(99);
    ::execv(arguments[0], arguments.data());
    ::_exit(98);
  }
  return child;
}
Extent step_of(const std::filesystem::path& checkpoint) { return Extent(std::stoul(checkpoint.filename().string().substr(5))); }
/// Whether a run comes to a checkpoint of this step or a later one; older ones may vanish while we look.
bool comes_to(const std::filesystem::path& run, Extent step) {
  for (int i = 0; i < 3000; ++i, std::this_thread::sleep_for(std::chrono::milliseconds{20})) try {
      if (step_of(newest_checkpoint(run)) >= step) return true;
    } catch (const std::exception&) {
    }
  return false;
}

}  // namespace

TEST_CASE("a resumed run is the run that wasn't interrupted, bit for bit") {
  const TrainerPlace place;
  REQUIRE(place.train("--steps 12 --eval-every 4 --dropout 0.1 --micro-batches 2 --save whole --metrics whole.jsonl").code == 0);
  REQUIRE(place.train("--steps 12 --eval-every 4 --dropout 0.1 --micro-batches 2 --save-every 5 --save half --metrics half.jsonl").code == 0);
  std::filesystem::remove_all(place.folder / "half" / "step-000012");
  std::filesystem::remove_all(place.folder / "half" / "step-000010");
  const ProgramResult resumed = place.resume("half");  // the flags are the checkpoint's
  CHECK_MESSAGE(resumed.code == 0, resumed.output);
  CHECK(place.weights("half/step-000012") == place.weights("whole/step-000012"));
  CHECK(read_gpt2_config(place.folder / "whole" / "step-000012" / "config.json").dropout_attention == 0.1);
  const auto half = read_metrics(place.folder / "half.jsonl"), whole = read_metrics(place.folder / "whole.jsonl");
  REQUIRE(half.size() == 12);
  for (Extent i = 0; i < 12; ++i) CHECK(half[i].loss == whole[i].loss);
  CHECK(half[11].validation_loss == whole[11].validation_loss);
  CHECK(read_file(place.folder / "half.svg").starts_with("<svg"));

  const ProgramResult other = place.resume("half --steps 13 --mesh data=2 --recipe zero3");  // another layout goes on as well
  CHECK_MESSAGE(other.code == 0, other.output);
  std::ofstream{place.folder / "more.txt"} << read_file(place.folder / "text.txt") << "one more line\n";
  const ProgramResult changed = place.resume("half --data " + place.path("more.txt"));
  CHECK(changed.code == 1);
  CHECK(changed.says("dsx-E710"));
}

TEST_CASE("a signal finishes the step, saves and says how to go on") {
  const TrainerPlace place;
  Child child{start(place, {"--steps", "1000000", "--eval-every", "0", "--save-every", "50", "--save", place.path("run")})};
  REQUIRE(comes_to(place.folder / "run", 50));
  CHECK(child.end(SIGTERM) == 0);
  const std::string log = read_file(place.folder / "log");
  CHECK(log.find("stopped; go on with: train_gpt2 --resume " + place.path("run")) != log.npos);
  const auto newest = newest_checkpoint(place.folder / "run");
  CHECK(place.resume("run --steps 1").code == 0);  // done already: nothing to do
  CHECK(newest_checkpoint(place.folder / "run") == newest);
}

TEST_CASE("a killed run loses nothing older than its last save") {
  const TrainerPlace place;
  Child child{start(place, {"--steps", "1000000", "--eval-every", "0", "--save-every", "3", "--keep", "2", "--save", place.path("run")})};
  REQUIRE(comes_to(place.folder / "run", 30));
  CHECK(child.end(SIGKILL) == 128 + SIGKILL);
  const Extent step = step_of(newest_checkpoint(place.folder / "run"));
  CHECK(step >= 30);
  const ProgramResult resumed = place.resume("run --steps " + std::to_string(step + 2));
  CHECK_MESSAGE(resumed.code == 0, resumed.output);
  CHECK(newest_checkpoint(place.folder / "run") == checkpoint_folder(place.folder / "run", step + 2));
}

TEST_CASE("a run that was moved goes on where it lies now") {
  const TrainerPlace place;
  REQUIRE(place.train("--steps 2 --eval-every 0 --save run").code == 0);
  std::filesystem::rename(place.folder / "run", place.folder / "moved");
  CHECK(place.resume("moved").says("nothing to train: 2 of 2 steps are done"));
  CHECK(place.resume("moved/step-000002/ --steps 3").code == 0);
  CHECK(newest_checkpoint(place.folder / "moved") == place.folder / "moved" / "step-000003");
  CHECK(!std::filesystem::exists(place.folder / "run"));
}

TEST_CASE("a full disk is told, and the checkpoint before it stays whole") {
  const TrainerPlace place;
  REQUIRE(place.train("--steps 4 --eval-every 0 --save run").code == 0);
  const std::string before = place.weights("run/step-000004");
  const ProgramResult full = place.run("trap '' XFSZ; ulimit -f 20; " + programs + "train_gpt2 --resume run --steps 8");
  CHECK(full.code == 1);
  CHECK_MESSAGE(full.says("dsx-E602"), full.output);
  CHECK(newest_checkpoint(place.folder / "run") == place.folder / "run" / "step-000004");
  CHECK(place.weights("run/step-000004") == before);
  CHECK(place.resume("run --steps 8").code == 0);
}

TEST_CASE("a loss that isn't finite stops the run, and the last save stays") {
  const TrainerPlace place;
  const ProgramResult ended = place.train("--steps 40 --rate 1e25 --clip 0 --eval-every 0 --save-every 1 --save run");
  CHECK(ended.code == 1);
  REQUIRE_MESSAGE(ended.says("dsx-E409: step "), ended.output);
  CHECK(std::filesystem::exists(newest_checkpoint(place.folder / "run") / "weights.safetensors"));
}

TEST_CASE("what can't be trained gets one line with its values and exit code 1") {
  const TrainerPlace place;
  struct Case {
    std::string flags, message;
  };
  const Case cases[] = {{"--recipe zero9", "dsx-E108: no recipe is called \"zero9\""},
                        {"--mesh rows=2", "dsx-E312: the mesh \"rows=2\" has no axis"},
                        {"--mesh data=3", "dsx-E308"},
                        {"--ranks 2 --mesh data=4", "dsx-E310"},
                        {"--mesh pipe=4", "dsx-E303"},
                        {"--colour", "not expected: --colour"},
                        {"--dropout 2", "--dropout: 2 is no number from 0 to 0.99"},
                        {"--rate nan", "--rate: nan is no number from 0 up"},
                        {"--keep 0", "--keep: 0 is no number from 1 up"},
                        {"--save text.txt/run", "dsx-E602: can't create the folder '" + place.path("text.txt/run")},
                        {"--export text.txt/hub", "/text.txt/hub': Not a directory"},
                        {"--tokenizer absent", "dsx-E601"},
                        {"--load " DSX_GOLDEN "/gpt2_tiny", "dsx-E712"},
                        {"--resume absent", "dsx-E670"}};
  for (const auto& [flags, message] : cases) {
    const ProgramResult result = place.train("--steps 1 --eval-every 0 " + flags);
    CHECK_MESSAGE(result.code == 1, flags);
    CHECK_MESSAGE(result.says(message), flags << ": " << result.output);
    CHECK_MESSAGE(!result.says("step 1/1"), flags);  // nothing was trained in vain
  }
  const std::string bare = programs + "train_gpt2 --cache cache --steps 1 ";
  const ProgramResult nothing = place.run(bare);
  CHECK(nothing.code == 1);
  CHECK(nothing.says("dsx-E713: --data is missing"));
  const ProgramResult heads = place.run(bare + "--data text.txt --vocabulary 300 --width 16 --heads 5");
  CHECK(heads.code == 1);
  CHECK(heads.says("dsx-E307: 5 heads don't divide a width of 16"));
  std::ofstream{place.folder / "short.txt"} << "too short\n";
  const ProgramResult text = place.run(bare + "--data short.txt --vocabulary 260 --context 64");
  CHECK(text.code == 1);
  CHECK(text.says("dsx-E651"));
  CHECK(place.train("--list-recipes").says("zero3"));
}

TEST_CASE("the dry run prints what a run will need, and the sample can be made again from the checkpoint") {
  const TrainerPlace place;
  const ProgramResult dry = place.run(programs + "train_gpt2 --dry --layers 48 --width 1600 --heads 25 --vocabulary 50257 --context 1024 --batch 512 "
                               "--mesh data=64,tensor=4,pipe=2 --micro-batches 4 --recipe zero2+bf16+recompute");
  CHECK_MESSAGE(dry.code == 0, dry.output);
  for (const char* text : {"rank 0 of 512", "rank 256 of 512", "1.6 G parameters", "TFLOP", "all_gather over data of 64, bf16",
                           "send over pipe of 2, bf16"})
    CHECK_MESSAGE(dry.says(text), text);

  const ProgramResult trained = place.train("--steps 6 --eval-every 3 --sample-every 6 --save run --export hub");
  REQUIRE(trained.code == 0);
  CHECK(trained.says("unigram loss "));
  CHECK(trained.says("sample at step 0:"));
  const std::size_t at = trained.output.find("sample at step 6:\n") + 18;
  const ProgramResult again = place.run(programs + "generate --load run --seed 1 --threads 1");
  CHECK(again.code == 0);
  CHECK(again.output == trained.output.substr(at, again.output.size()));
  CHECK(place.run(programs + "generate --load run --tokens 4 --prompt 'and verse' --beams 2").output.starts_with("and verse"));
  CHECK(place.run(programs + "generate --load run --tokens 40").says("dsx-E720"));
  CHECK(place.run(programs + "generate --load hub --seed 1 --threads 1").output == again.output);
}

TEST_CASE("MPI processes train, stop at a signal, go on in another layout, and end together when one is killed" *
          doctest::skip(std::string_view{DSX_MPIRUN}.empty())) {
  const TrainerPlace place;
  const std::string run = place.path("run");
  const auto mpirun = [](int n) { return DSX_MPIRUN " " + std::to_string(n); };
  const auto newest = [&] { return step_of(newest_checkpoint(run)); };
  const auto goes_on = [&](const std::string& launcher, const std::string& mesh) {
    const Extent steps = newest() + 3;
    const auto result = place.run(launcher + " " + programs + "train_gpt2 --resume run --mesh " + mesh + " --steps " + std::to_string(steps));
    CHECK_MESSAGE(result.code == 0, result.output);
    CHECK(newest() == steps);
  };
  const std::string stopped = "stopped; go on with: train_gpt2 --resume " + run;
  const auto endless = [&](const char* mesh) {
    return std::vector<std::string>{"--steps", "1000000", "--eval-every", "0", "--save-every", "10", "--save", run, "--mesh", mesh};
  };

  {  // one rank hears the signal, all finish the step
    Child job{start(place, endless("data=2,tensor=2"), mpirun(4))};
    REQUIRE(comes_to(run, 20));
    const auto ranks = job.children();
    REQUIRE(ranks.size() == 4);
    CHECK(job.end(SIGTERM, ranks[2]) == 0);
    const std::string log = read_file(place.folder / "log");
    CHECK(log.find(stopped) != log.npos);
    CHECK(log.find('\033') == log.npos);  // the log is no terminal
  }
  goes_on(mpirun(2), "tensor=2");
  goes_on(mpirun(4), "data=2,tensor=2");

  // mpirun at SIGINT gives its processes SIGTERM and one second; a busy machine may need more, and then the last save is what stays.
  std::string log;
  for (int i = 0; i < 3 && log.find(stopped) == log.npos; ++i) {
    std::filesystem::remove_all(run);
    Child job{start(place, endless("tensor=2"), mpirun(2))};
    REQUIRE(comes_to(run, 20));
    CHECK(job.end(SIGINT) != 0);
    log = read_file(place.folder / "log");
  }
  CHECK_MESSAGE(log.find(stopped) != log.npos, log);
  goes_on(mpirun(2), "data=2");

  std::chrono::milliseconds took{1'000};
  for (int i = 0; i < 3 && took >= std::chrono::seconds{1}; ++i) {
    std::filesystem::remove_all(run);
    Child job{start(place, endless("data=2,tensor=2"), mpirun(4))};
    REQUIRE(comes_to(run, 20));
    const auto ranks = job.children();
    REQUIRE(ranks.size() == 4);
    const auto begin = std::chrono::steady_clock::now();
    CHECK(job.end(SIGKILL, ranks[1]) == 128 + SIGKILL);
    took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
    log = read_file(place.folder / "log");
    CHECK_MESSAGE(log.find(" noticed that process rank 1 ") != log.npos, log);
    MESSAGE("the job ended " << took.count() << " ms after its rank");
  }
  CHECK(took < std::chrono::seconds{1});
  CHECK(newest() >= 20);
  goes_on("", "data=1");
}
