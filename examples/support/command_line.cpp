// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// CLI11, for no other source to compile.
#include "command_line.hpp"

#include <dsx/core/error.hpp>

#include <CLI/CLI.hpp>
#include <cmath>

struct CommandLine::Parser : CLI::App {
  using CLI::App::App;
  CLI::Option& add(const dsx::Flag& flag, auto& field) {
    CLI::Option& option = *add_option(flag.name, field, flag.text)->group(flag.group)->configurable(flag.kept)->required(flag.required);
    if (!flag.choices.empty()) option.check(CLI::IsMember(std::vector<std::string>{flag.choices.begin(), flag.choices.end()}));
    if (std::isfinite(flag.least)) option.check([low = flag.least, high = flag.most](const std::string& text) {
      char* end = nullptr;
      const double x = std::strtod(text.c_str(), &end);
      if (x >= low && x <= high && *end == 0) return std::string{};
      return dsx::concat(text, " is no number from ", low, std::isfinite(high) ? dsx::concat(" to ", high) : " up");
    });
    return option;
  }
};

namespace {
/// Paths are kept whole, for a resumed run may start in another folder.
std::string absolute(std::string path) { return path.empty() ? path : std::filesystem::absolute(path).string(); }
}  // namespace

CommandLine::CommandLine(const char* text) : parser_{std::make_unique<Parser>(text)} {}
CommandLine::~CommandLine() = default;

void CommandLine::operator()(const dsx::Flag& flag, bool& field) {
  parser_->add_flag(flag.name, field, flag.text)->group(flag.group)->configurable(flag.kept);
}
void CommandLine::operator()(const dsx::Flag& flag, double& field) { parser_->add(flag, field).capture_default_str(); }
void CommandLine::operator()(const dsx::Flag& flag, dsx::Extent& field) { parser_->add(flag, field).capture_default_str(); }
void CommandLine::operator()(const dsx::Flag& flag, std::string& field) { parser_->add(flag, field).capture_default_str(); }
void CommandLine::operator()(const dsx::Flag& flag, std::filesystem::path& field) {
  parser_->add(flag, field).capture_default_str()->transform(absolute);
}
void CommandLine::operator()(const dsx::Flag& flag, std::vector<std::filesystem::path>& field) { parser_->add(flag, field).transform(absolute); }

std::optional<int> CommandLine::read(int argc, char** argv, const std::filesystem::path& settings) {
  try {
    if (!settings.empty()) parser_->set_config("--config", settings.string(), "flags of the run that is resumed");
    parser_->parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return parser_->exit(e) == 0 ? 0 : 1;
  }
  return {};
}
std::string CommandLine::settings() const { return parser_->config_to_str(true); }
