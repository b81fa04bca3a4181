// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: examples faults
/// What scripts/quickstart says where it can't go on, in a copy of its own with programs that pretend.
#include "io/io_support.hpp"

#include <dsx/io/atomic_file.hpp>

#include <doctest/doctest.h>

#include <sys/wait.h>

using namespace dsx;
using test::TemporaryFolder;

namespace {

struct Copy {
  TemporaryFolder folder;

  Copy() {
    const std::filesystem::path source{DSX_SOURCE_DIR};
    for (const char* name : {"scripts", "cmake", "bin"}) std::filesystem::create_directory(folder / name);
    for (const char* file : {"scripts/quickstart", "cmake/missing_packages.sh", "cmake/apt-packages.txt"})
      std::filesystem::copy_file(source / file, folder / file);
    pretend("apt-get", "echo 'E: no network' >&2; exit 100");
    pretend("sudo", "exit 1");
    pretend("bible", "exit 1");
    pretend("dpkg-query", "for last; do :; done; case $last in ninja-build | libpcre2-dev | bible*) exit 1 ;; esac; printf installed");
  }
  void pretend(const char* program, const std::string& body) const {
    write_file(folder / "bin" / program, "#!/bin/sh\n" + body + "\n");
    std::filesystem::permissions(folder / "bin" / program, std::filesystem::perms::owner_all);
  }
  /// Exit code and what was said, from another folder than the script's own.
  std::pair<int, std::string> run(const std::string& arguments) const {
    const std::string at = folder.path().string();
    const int status = std::system(("cd " + at + "/bin && PATH=" + at + "/bin:$PATH ../scripts/quickstart " + arguments + " > ../log 2>&1").c_str());
    return {WEXITSTATUS(status), read_file(folder / "log")};
  }
};

}  // namespace

TEST_CASE("packages that are missing and can't be installed are listed with the line that installs them") {
  const Copy copy;
  const auto [code, said] = copy.run("");
  CHECK(code == 1);
  CHECK_MESSAGE(said.starts_with("Text: this repository's documentation with a vocabulary of 512, since bible-kjv can't be had"), said);
  CHECK(said.find("E: no network\n") != said.npos);
  CHECK(said.find("can't be installed from here: ninja-build libpcre2-dev \n") != said.npos);
  CHECK(said.find("\n  apt-get install --no-install-recommends ninja-build libpcre2-dev \n") != said.npos);
  copy.pretend("bible", "echo 'Genesis1:1 In the beginning'");
  CHECK(copy.run("").second.starts_with("Text: the King James Bible"));
  CHECK(read_file(copy.folder / "build" / "quickstart" / "bible.txt") == "In the beginning\n");  // without its verse label
  CHECK(copy.run("--data ../log").second.starts_with("Text: your text\n"));
}

TEST_CASE("quickstart refuses what it can't do before it does anything") {
  const Copy copy;
  for (const auto& [arguments, message] : {std::pair{"--data absent", "there is no absent"}, {"--colour", "unknown argument --colour"},
                                           {"--seconds", "--seconds needs a value"}, {"--seconds soon", "take whole numbers"}}) {
    const auto [code, said] = copy.run(arguments);
    CHECK(code == 1);
    CHECK_MESSAGE(said.find(message) != said.npos, said);
  }
  CHECK(!std::filesystem::exists(copy.folder / "build"));
  CHECK(copy.run("--help").first == 0);
}
