// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// dsx's flags on a CLI11 command line: dsx::each_flag(run, shape, CommandLine{app});
#pragma once

#include <dsx/core/error.hpp>
#include <dsx/core/flag.hpp>

#include <CLI/CLI.hpp>
#include <filesystem>

struct CommandLine {
  CLI::App& app;
  void operator()(const dsx::Flag& flag, bool& field) { app.add_flag(flag.name, field, flag.text)->group(flag.group)->configurable(flag.kept); }
  void operator()(const dsx::Flag& flag, auto& field) {
    CLI::Option& option = *app.add_option(flag.name, field, flag.text)->group(flag.group)->configurable(flag.kept);
    if constexpr (!requires { field.push_back(std::filesystem::path{}); }) option.capture_default_str();
    if constexpr (!requires { field + 1; } && !requires { field.substr(0); })  // paths: a resumed run may start in another folder
      option.transform([](std::string path) { return path.empty() ? path : std::filesystem::absolute(path).string(); });
    if (!flag.choices.empty()) option.check(CLI::IsMember(std::vector<std::string>{flag.choices.begin(), flag.choices.end()}));
    if (std::isfinite(flag.least)) option.check([low = flag.least, high = flag.most](const std::string& text) {
      char* end = nullptr;
      const double x = std::strtod(text.c_str(), &end);
      if (x >= low && x <= high && *end == 0) return std::string{};
      return dsx::concat(text, " is no number from ", low, std::isfinite(high) ? dsx::concat(" to ", high) : " up");
    });
  }
};
