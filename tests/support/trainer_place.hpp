// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A folder with a text in which trainers are run as programs.
///
///     const TrainerPlace place{"train_moe"};
///     const ProgramResult result = place.train("--steps 2 --save run");
///     CHECK_MESSAGE(result.code == 0, result.output);
#pragma once

#include "io/io_support.hpp"

#include <dsx/io/atomic_file.hpp>

#include <fstream>
#include <sys/wait.h>

namespace dsx::test {

inline const std::string programs = DSX_BINARY_DIR "/examples/";

struct ProgramResult {
  int code = -1;
  std::string output;
  bool says(std::string_view text) const { return output.find(text) != output.npos; }
};

/// A small run in a folder of its own.
struct TrainerPlace {
  TemporaryFolder folder;
  std::string program, flags;

  explicit TrainerPlace(const std::string& name = "train_gpt2") : program{programs + name} {
    std::ofstream text{folder / "text.txt"};
    for (int i = 0; i < 1500; ++i) text << "and verse " << i * i % 91 << " says that " << i % 7 << " is more than " << i % 5 << "\n";
    flags = " --data " + path("text.txt") + " --cache " + path("cache") +
            " --vocabulary 300 --layers 1 --width 16 --heads 2 --context 16 --batch 4 --warmup 2 --threads 1 --eval-batches 2 ";
  }
  std::string path(const std::string& name) const { return (folder / name).string(); }
  /// Through a shell, so that limits and redirections can be set.
  ProgramResult run(const std::string& command) const {
    const std::string log = path("log");
    const int status = std::system(("cd " + folder.path().string() + " && { " + command + " ; } > " + log + " 2>&1 < /dev/null").c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_file(log)};
  }
  ProgramResult train(const std::string& more) const { return run(program + " " + flags + more); }
  ProgramResult resume(const std::string& more) const { return run(program + " --resume " + more); }
  std::string weights(const std::string& checkpoint) const {
    return read_file(folder / checkpoint / "weights.safetensors") + read_file(folder / checkpoint / "state.safetensors");
  }
};

}  // namespace dsx::test
