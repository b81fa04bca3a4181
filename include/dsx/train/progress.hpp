// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// How a run goes, for people: on a terminal one line that is refreshed, else a plain line every ten seconds.
///
///     Progress progress{.steps = 1000};
///     progress.show(record);                 // a StepRecord
///     progress.say("saved run/step-000100"); // a line of its own
#pragma once

#include <dsx/train/metrics.hpp>

#include <chrono>
#include <cstdio>
#include <string_view>

namespace dsx {

struct ProgressOptions {
  Extent steps = 0;  // of the whole run
  bool quiet = false;
  std::FILE* to = stdout;
  std::chrono::milliseconds every{10'000};  // between plain lines
};

class Progress {
 public:
  explicit Progress(ProgressOptions options);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(const StepRecord& record);
  /// Shows what show() last got, where it hasn't been shown: at the end of a run.
  void flush();
  void say(std::string_view line);

 private:
  void print(bool refreshed);

  ProgressOptions options_;
  bool terminal_, drawn_ = false, pending_ = false;
  std::chrono::steady_clock::time_point shown_{};
  StepRecord last_{}, first_{};
  bool begun_ = false;
};

/// "41 s", "12 min 5 s", "3 h 20 min".
std::string duration_text(double seconds);
/// "1.2 GiB".
std::string bytes_text(double bytes);
/// Of large numbers: "13.1 M".
std::string count_text(double count);

}  // namespace dsx
