// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// dsx's flags on a command line:
///
///     CommandLine line{"Trains a GPT-2."};
///     each_flag(run, shape, line);
///     if (const auto code = line.read(argc, argv)) return *code;
#pragma once

#include <dsx/core/flag.hpp>
#include <dsx/core/shape.hpp>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

class CommandLine {
 public:
  explicit CommandLine(const char* text);
  ~CommandLine();
  void operator()(const dsx::Flag& flag, bool& field);
  void operator()(const dsx::Flag& flag, double& field);
  void operator()(const dsx::Flag& flag, dsx::Extent& field);
  void operator()(const dsx::Flag& flag, std::string& field);
  void operator()(const dsx::Flag& flag, std::filesystem::path& field);
  void operator()(const dsx::Flag& flag, std::vector<std::filesystem::path>& field);

  /// Reads it, and of flags that it doesn't have those in `settings`, a file that settings() made. What is said of mistakes and for --help is
  /// printed, and the exit code given.
  std::optional<int> read(int argc, char** argv, const std::filesystem::path& settings = {});
  /// All flags that are kept, as they are now.
  std::string settings() const;

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
};
