// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What is known of each training step, as a file of JSON lines that survives the process.
///
///     MetricsFile metrics{"metrics.jsonl", trainer.steps()};   // goes on after the step that was resumed at
///     metrics.write({.step = 12, .tokens = 24'576, .loss = 5.1, ...});
///
/// Keys: step, tokens, loss, validation_loss (when evaluated), learning_rate, gradient_norm, clipped, tokens_per_second, seconds,
/// peak_bytes; of models with experts balance_loss, least_load, most_load, load_entropy, dropped.
#pragma once

#include <dsx/core/shape.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace dsx {

/// Of a step's routers: what experts were asked for, and what was dropped.
struct RoutingRecord {
  double balance_loss = 0;              // experts x the sum of share x mean probability, the mean over layers: 1 is perfect balance
  double least_load = 0, most_load = 0; // shares of the idlest and the busiest expert of any layer, in units of an even one
  double load_entropy = 0;              // of the shares over that of an even choice, the mean over layers
  double dropped = 0;                   // of all choices

  friend bool operator==(const RoutingRecord&, const RoutingRecord&) = default;
};

struct StepRecord {
  Extent step = 0, tokens = 0;  // done, of the whole run
  double loss = 0;              // nats a token, and what losses of layers add
  std::optional<double> validation_loss = {};
  double learning_rate = 0, gradient_norm = 0;
  bool clipped = false;
  double tokens_per_second = 0, seconds = 0;  // since the program began
  Extent peak_bytes = 0;                      // of this rank's arenas and blocks
  std::optional<RoutingRecord> routing = {};  // of models with experts
};

/// Since this program began.
double process_seconds();

/// One line of JSON, without its end.
std::string to_json(const StepRecord& record);
/// All whole lines of a metrics file; none if there is no file. A last line that was cut off is left out.
std::vector<StepRecord> read_metrics(const std::filesystem::path& file);

/// Appends, one write() a line, so that a killed process leaves whole lines.
class MetricsFile {
 public:
  /// Keeps the lines of steps up to `resumed_at` and drops later ones: they will be written again. dsx-E602 if it can't be written.
  MetricsFile(std::filesystem::path file, Extent resumed_at);
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;

  void write(const StepRecord& record);
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  Extent written_ = 0;
};

/// A drawing (SVG) of training and validation loss over tokens.
std::string loss_curve(const std::vector<StepRecord>& records);

}  // namespace dsx
