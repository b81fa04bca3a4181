// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Files and folders appear whole or not at all: full disks, two writers, and a crash between any two steps of a commit.
#include "io_support.hpp"

#include <dsx/io/atomic_file.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace dsx;
using namespace dsx::test;
namespace fs = std::filesystem;

namespace {

void put(const fs::path& file, std::string_view text) {
  fs::create_directories(file.parent_path());
  std::ofstream{file} << text;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator{folder}) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

using Names = std::vector<std::string>;

/// Runs f in a child and gives its exit status, or 256 + the signal that ended it.
template <class F>
int in_child(F f) {
  const pid_t child = ::fork();
  if (child == 0) {
    int status = 99;
    try {
      status = f();
    } catch (...) {
    }
    ::_exit(status);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("a committed file replaces the old one and leaves nothing beside it") {
  const TemporaryFolder folder;
  const fs::path file = folder / "a.txt";
  write_file(file, "old");
  {
    AtomicFile next{file};
    next.write("ne");
    next.write("w");
    CHECK(next.written() == 3);
    CHECK(read_file(file) == "old");
    next.commit();
  }
  CHECK(read_file(file) == "new");
  CHECK(names_in(folder.path()) == Names{"a.txt"});
}

TEST_CASE("a file without commit leaves the old one and removes its temporary") {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", "old");
  {
    AtomicFile next{folder / "a.txt"};
    next.write("half of the n");
  }
  CHECK(read_file(folder / "a.txt") == "old");
  CHECK(names_in(folder.path()) == Names{"a.txt"});
}

TEST_CASE("what a killed writer left of a file is overwritten by the next") {
  const TemporaryFolder folder;
  const fs::path file = folder / "a.txt";
  CHECK(in_child([&] {
          AtomicFile dying{file};
          dying.write("a long text that never becomes a file");
          ::raise(SIGKILL);
          return 0;
        }) == 256 + SIGKILL);
  CHECK(names_in(folder.path()) == Names{"a.txt.partial"});
  write_file(file, "short");
  CHECK(read_file(file) == "short");
  CHECK(names_in(folder.path()) == Names{"a.txt"});
}

TEST_CASE("two writers of one file are refused, one after the other is not") {
  const TemporaryFolder folder;
  AtomicFile first{folder / "a.txt"};
  const Refusal refusal = error_of([&] { AtomicFile{folder / "a.txt"}; });
  CHECK(refusal == 603);
  CHECK(refusal.says("a.txt.partial"));
  first.write("first");
  first.commit();
  write_file(folder / "a.txt", "second");
  CHECK(read_file(folder / "a.txt") == "second");
}

TEST_CASE("a file that was committed takes no more") {
  const TemporaryFolder folder;
  AtomicFile file{folder / "a.txt"};
  file.write("abc");
  file.commit();
  CHECK(error_of([&] { file.write("d"); }) == 604);
  CHECK(error_of([&] { file.commit(); }) == 604);
  CHECK(read_file(folder / "a.txt") == "abc");
}

TEST_CASE("a full disk is an error with file, offset and cause") {
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  REQUIRE(full >= 0);
  const std::string text(100, 'x');
  const Refusal refusal = error_of([&] { detail::write_fully(full, as_bytes(text), "some/file", 4096); });
  ::close(full);
  CHECK(refusal == 602);
  CHECK(refusal.says("'some/file': 100 bytes at offset 4096 were not taken: No space left on device"));
}

TEST_CASE("a write that stops half-way is an error, and the old file stays") {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", "old");
  const int status = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{10'000, 10'000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
    const Refusal refusal = error_of([&] {
      AtomicFile file{folder / "a.txt"};
      const std::string text(6'000, 'x');
      file.write(text);
      file.write(text);  // 4,000 bytes of it fit
      file.commit();
    });
    if (refusal.number != 602) return 2;
    return refusal.says("2000 bytes at offset 10000 were not taken: File too large") ? 0 : 3;
  });
  CHECK(status == 0);
  CHECK(read_file(folder / "a.txt") == "old");
  CHECK(names_in(folder.path()) == Names{"a.txt"});
}

TEST_CASE("files that can't be read or written say why") {
  const TemporaryFolder folder;
  const Refusal absent = error_of([&] { read_file(folder / "absent"); });
  CHECK(absent == 601);
  CHECK(absent.says("No such file"));
  CHECK(error_of([&] { read_file(folder.path()); }) == 601);
  CHECK(error_of([&] { AtomicFile{folder / "no/such/folder/a.txt"}; }) == 602);
  CHECK(error_of([&] { AtomicFile{folder.path()}; }) == 602);
  CHECK(error_of([&] { AtomicFile{"/dev/null"}; }) == 602);
  put(folder / "file", "x");
  CHECK(error_of([&] { AtomicFolder{folder / "file"}; }) == 602);
  CHECK(error_of([&] { AtomicFolder{folder / "no/such/folder"}; }) == 602);
  // A link planted under the temporary name is not followed.
  fs::create_symlink(folder / "file", folder / "b.txt.partial");
  CHECK(error_of([&] { AtomicFile{folder / "b.txt"}; }) == 602);
  CHECK(read_file(folder / "file") == "x");
}

TEST_CASE("a large file is read whole") {
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 700'000; ++i) text += std::to_string(i);
  write_file(folder / "a", text);
  CHECK(read_file(folder / "a") == text);
  write_file(folder / "b", "");
  CHECK(read_file(folder / "b").empty());
  CHECK(!read_file("/proc/self/status").empty());  // says that its size is 0
}

TEST_CASE("a committed folder replaces the old one") {
  const TemporaryFolder folder;
  const fs::path save = folder / "save";
  for (const char* text : {"one", "two"}) {
    AtomicFolder next{save};
    put(next.path() / "sub/a.txt", text);
    write_file(next.path() / "b.txt", text);
    if (fs::exists(save)) CHECK(read_file(save / "sub/a.txt") == "one");
    next.commit();
    CHECK(error_of([&] { next.commit(); }) == 604);
    CHECK(read_file(save / "sub/a.txt") == text);
    CHECK(find_folder(save) == save);
  }
  CHECK(names_in(save) == Names{"b.txt", "sub"});
  CHECK(names_in(folder.path()) == Names{"save"});
}

TEST_CASE("a folder without commit leaves the old one") {
  const TemporaryFolder folder;
  put(folder / "save/a.txt", "old");
  {
    AtomicFolder next{folder / "save/"};
    put(next.path() / "a.txt", "new");
    CHECK(next.path() == folder / "save.partial");
    CHECK(error_of([&] { AtomicFolder{folder / "save"}; }) == 603);
  }
  CHECK(read_file(folder / "save/a.txt") == "old");
  CHECK(names_in(folder.path()) == Names{"save"});
}

TEST_CASE("a crash between any two steps of a commit leaves a complete folder to be found") {
  // What lies on disk after each step of AtomicFolder::commit(), and which version the rule of recovery names.
  struct Step {
    const char *what, *save, *old, *partial, *found;
  };
  const Step steps[] = {{"before the first save", nullptr, nullptr, "half", nullptr},
                        {"while the new one is written", "old", nullptr, "half", "old"},
                        {"before the renames", "old", nullptr, "new", "old"},
                        {"between the renames", nullptr, "old", "new", "old"},
                        {"before the old one is removed", "new", "old", nullptr, "new"},
                        {"while the old one is removed, and once more begun", "new", "half", "half", "new"}};
  for (const Step& step : steps) {
    CAPTURE(step.what);
    const TemporaryFolder folder;
    if (step.save) put(folder / "save/a.txt", step.save);
    if (step.old) put(folder / "save.old/a.txt", step.old);
    if (step.partial) put(folder / "save.partial/a.txt", step.partial), put(folder / "save.partial/left/b.txt", "left");
    if (step.found)
      CHECK(read_file(find_folder(folder / "save") / "a.txt") == step.found);
    else
      CHECK(error_of([&] { find_folder(folder / "save"); }) == 601);

    // A next writer that dies as well changes nothing that matters ...
    CHECK(in_child([&] {
            AtomicFolder dying{folder / "save"};
            put(dying.path() / "a.txt", "dying");
            ::raise(SIGKILL);
            return 0;
          }) == 256 + SIGKILL);
    if (step.found) CHECK(read_file(find_folder(folder / "save") / "a.txt") == step.found);
    // ... and one that lives brings order.
    AtomicFolder next{folder / "save"};
    CHECK(fs::is_empty(next.path()));
    CHECK(!fs::exists(folder / "save.old"));
    write_file(next.path() / "a.txt", "newest");
    next.commit();
    CHECK(read_file(folder / "save/a.txt") == "newest");
    CHECK(names_in(folder.path()) == Names{"save"});
  }
}

TEST_CASE("a writer killed at any moment never costs the folder that was complete") {
  const TemporaryFolder folder;
  const fs::path save_folder = folder / "save";
  const auto save = [&](int number) {
    AtomicFolder next{save_folder};
    write_file(next.path() / "number", std::to_string(number));
    write_file(next.path() / "twice", std::to_string(number));
    next.commit();
  };
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 4; ++i) save(i);
  const auto one_save = (std::chrono::steady_clock::now() - begin) / 4;

  int last = 0;
  for (int round = 1; round <= 40; ++round) {
    int pipe[2];
    REQUIRE(::pipe(pipe) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
      for (int i = 0;; ++i) {
        save(round * 100'000 + i);
        if (i == 0 && ::write(pipe[1], "x", 1) != 1) ::_exit(1);
      }
    }
    char byte;
    CHECK(::read(pipe[0], &byte, 1) == 1);
    std::this_thread::sleep_for(one_save * (round * 7 % 40) / 20);  // the moments spread over two saves
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ::close(pipe[0]), ::close(pipe[1]);
    const fs::path found = find_folder(save_folder);
    const std::string number = read_file(found / "number");
    CHECK(number == read_file(found / "twice"));
    CHECK(std::stoi(number) >= round * 100'000);
    CHECK(std::stoi(number) > last);
    last = std::stoi(number);
  }
}
