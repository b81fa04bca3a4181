// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// SIGINT and SIGTERM as a wish to stop after the step under way.
///
///     StopSignals stop;
///     while (!stop.asked()) trainer.step(...);
///
/// A second one ends the process at once, as if nobody had listened.
#pragma once

namespace dsx {

class StopSignals {
 public:
  /// From now on. One object a process listens at a time; others only read.
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The signal that came, or 0.
  static int asked() noexcept;
};

}  // namespace dsx
