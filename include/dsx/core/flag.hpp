// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A flag of a command line as options describe it, whatever reads the line: options call f(flag, field) for each of their fields.
///
///     each_flag(shape, [&](const Flag& flag, auto& field) { app.add_option(flag.name, field, flag.text)->group(flag.group); });
#pragma once

#include <limits>
#include <vector>

namespace dsx {

struct Flag {
  const char *group, *name, *text;
  double least = -std::numeric_limits<double>::infinity(), most = std::numeric_limits<double>::infinity();  // of a number
  std::vector<const char*> choices = {};  // of a word; empty: any
  bool kept = true;                       // with a checkpoint, for the run that resumes from it
  bool required = false;
};

}  // namespace dsx
