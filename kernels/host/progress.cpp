// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Progress lines.
#include <dsx/core/error.hpp>
#include <dsx/train/progress.hpp>

#include <algorithm>
#include <unistd.h>

namespace dsx {
namespace {

std::string formatted(const char* format, auto... values) {
  char text[160];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

}  // namespace

std::string duration_text(double seconds) {
  const auto whole = static_cast<long long>(std::max(seconds, 0.0) + 0.5);
  if (whole < 60) return formatted("%lld s", whole);
  if (whole < 3600) return formatted("%lld min %lld s", whole / 60, whole % 60);
  return formatted("%lld h %lld min", whole / 3600, whole % 3600 / 60);
}

std::string bytes_text(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  int unit = 0;
  for (; bytes >= 1024 && unit < 5; ++unit) bytes /= 1024;
  return formatted(unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

std::string count_text(double count) {
  const char* units[] = {"", " k", " M", " G", " T", " P", " E"};
  int unit = 0;
  for (; count >= 1000 && unit < 6; ++unit) count /= 1000;
  return formatted(unit == 0 ? "%.0f%s" : "%.1f%s", count, units[unit]);
}

// mpirun gives each process a terminal, also where its own output goes to a file.
Progress::Progress(ProgressOptions options)
    : options_{options}, terminal_{::isatty(::fileno(options.to)) == 1 && !std::getenv("OMPI_COMM_WORLD_SIZE")} {}

Progress::~Progress() {
  if (drawn_) std::fputc('\n', options_.to);
}

void Progress::show(const StepRecord& record) {
  if (options_.quiet) return;
  const auto validation = record.validation_loss ? record.validation_loss : last_.validation_loss;
  if (!begun_) first_ = record, begun_ = true;
  last_ = record, last_.validation_loss = validation, pending_ = true;
  const auto now = std::chrono::steady_clock::now();
  if (shown_ == std::chrono::steady_clock::time_point{}) shown_ = now;  // the first plain line comes when there is something to tell
  if (terminal_ ? now - shown_ < std::chrono::milliseconds{100} && record.step < options_.steps && drawn_ : now - shown_ < options_.every) return;
  shown_ = now;
  print(terminal_);
}

void Progress::flush() {
  if (pending_ && !options_.quiet) print(terminal_);
}

void Progress::print(bool refreshed) {
  const StepRecord& r = last_;
  std::string line = formatted("step %zu/%zu  loss %.4f", r.step, options_.steps, r.loss);
  if (r.validation_loss) line += formatted("  validation %.4f", *r.validation_loss);
  if (r.routing)
    line += formatted("  balance %.3f  loads %.2f to %.2f  dropped %.1f %%", r.routing->balance_loss, r.routing->least_load, r.routing->most_load,
                      100 * r.routing->dropped);
  // Time left by the pace of this process, which may have resumed.
  const double pace = r.step > first_.step ? (r.seconds - first_.seconds) / double(r.step - first_.step) : r.seconds;
  const double left = pace * double(options_.steps - std::min(options_.steps, r.step));
  line += formatted("  %.0f tokens/s  %s left", r.tokens_per_second, duration_text(left).c_str());
  if (refreshed) std::fprintf(options_.to, "\r\033[K%s", line.c_str());
  else std::fprintf(options_.to, "%s\n", line.c_str());
  std::fflush(options_.to);
  drawn_ = refreshed, pending_ = false;
}

void Progress::say(std::string_view line) {
  if (options_.quiet) return;
  std::fprintf(options_.to, "%s%.*s\n", drawn_ ? "\r\033[K" : "", int(line.size()), line.data());
  std::fflush(options_.to);
  drawn_ = false;
}

}  // namespace dsx
