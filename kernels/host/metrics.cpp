// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Metrics as JSON lines.
#include <dsx/core/error.hpp>
#include <dsx/io/atomic_file.hpp>
#include <dsx/io/json.hpp>
#include <dsx/train/metrics.hpp>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

namespace dsx {
namespace {

const std::chrono::steady_clock::time_point began = std::chrono::steady_clock::now();

/// Key and field.
void each_member(auto& routing, auto&& f) {
  f("balance_loss", routing.balance_loss), f("least_load", routing.least_load), f("most_load", routing.most_load);
  f("load_entropy", routing.load_entropy), f("dropped", routing.dropped);
}

}  // namespace

double process_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(); }

std::string to_json(const StepRecord& r) {
  std::vector<Json::Member> members{{"step", r.step}, {"tokens", r.tokens}, {"loss", r.loss}};
  if (r.validation_loss) members.push_back({"validation_loss", *r.validation_loss});
  for (Json::Member& m : std::vector<Json::Member>{{"learning_rate", r.learning_rate}, {"gradient_norm", r.gradient_norm}, {"clipped", r.clipped},
                                                   {"tokens_per_second", r.tokens_per_second}, {"seconds", r.seconds}, {"peak_bytes", r.peak_bytes}})
    members.push_back(m);
  if (r.routing) each_member(*r.routing, [&](const char* key, double value) { members.push_back({key, value}); });
  return Json::object(members).dump();
}

std::vector<StepRecord> read_metrics(const std::filesystem::path& file) {
  std::vector<StepRecord> records;
  if (!std::filesystem::exists(file)) return records;
  const std::string text = read_file(file);
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    const Json line = Json::parse(std::string_view{text}.substr(begin, end - begin), file.string());
    StepRecord r{.step = line["step"].extent(), .tokens = line["tokens"].extent(), .loss = line["loss"].number()};
    if (line.contains("validation_loss")) r.validation_loss = line["validation_loss"].number();
    r.learning_rate = line["learning_rate"].number(), r.gradient_norm = line["gradient_norm"].number(), r.clipped = line["clipped"].boolean();
    r.tokens_per_second = line["tokens_per_second"].number(), r.seconds = line["seconds"].number(), r.peak_bytes = line["peak_bytes"].extent();
    if (line.contains("balance_loss")) each_member(r.routing.emplace(), [&](const char* key, double& value) { value = line[key].number(); });
    records.push_back(r);
  }
  return records;
}

MetricsFile::MetricsFile(std::filesystem::path file, Extent resumed_at) : path_{std::move(file)} {
  std::string kept;
  if (resumed_at > 0)
    for (const StepRecord& r : read_metrics(path_))
      if (r.step <= resumed_at) kept += to_json(r) + '\n';
  write_file(path_, kept);
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (descriptor_ < 0) fail<602>(path_, " can't be opened: ", std::strerror(errno));
  written_ = kept.size();
}

MetricsFile::~MetricsFile() { ::close(descriptor_); }

void MetricsFile::write(const StepRecord& record) {
  const std::string line = to_json(record) + '\n';
  detail::write_fully(descriptor_, std::as_bytes(std::span{line}), path_, written_);
  written_ += line.size();
}

}  // namespace dsx
