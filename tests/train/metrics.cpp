// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include "io/io_support.hpp"

#include <dsx/io/atomic_file.hpp>
#include <dsx/io/json.hpp>
#include <dsx/train/metrics.hpp>
#include <dsx/train/progress.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::error_of, test::TemporaryFolder;

namespace {

StepRecord record(Extent step, std::optional<double> validation = {}) {
  return {.step = step, .tokens = 100 * step, .loss = 5.0 / double(step), .validation_loss = validation, .learning_rate = 1e-3, .gradient_norm = 2,
          .clipped = true, .tokens_per_second = 50, .seconds = 2.0 * double(step), .peak_bytes = 4096};
}

}  // namespace

TEST_CASE("a line of metrics has the fixed keys in their order") {
  CHECK(to_json(record(2, 1.5)) ==
        R"({"step":2,"tokens":200,"loss":2.5,"validation_loss":1.5,"learning_rate":0.001,"gradient_norm":2.0,"clipped":true,)"
        R"("tokens_per_second":50.0,"seconds":4.0,"peak_bytes":4096})");
  CHECK(!Json::parse(to_json(record(2)), "line").contains("validation_loss"));
}

TEST_CASE("metrics are read back, without a line that was cut off") {
  const TemporaryFolder folder;
  const auto file = folder / "metrics.jsonl";
  {
    MetricsFile metrics{file, 0};
    for (Extent step = 1; step <= 3; ++step) metrics.write(record(step, step == 3 ? std::optional{1.25} : std::nullopt));
  }
  write_file(file, read_file(file) + R"({"step":4,"tok)");
  const auto records = read_metrics(file);
  REQUIRE(records.size() == 3);
  CHECK(records[1].loss == 2.5);
  CHECK(!records[1].validation_loss);
  CHECK(records[2].validation_loss == 1.25);
  CHECK(records[2].clipped);
  CHECK(read_metrics(folder / "absent").empty());
}

TEST_CASE("a resumed run writes the steps after its checkpoint once") {
  const TemporaryFolder folder;
  const auto file = folder / "metrics.jsonl";
  {
    MetricsFile metrics{file, 0};
    for (Extent step = 1; step <= 5; ++step) metrics.write(record(step));
  }
  {
    MetricsFile metrics{file, 3};
    metrics.write(record(4));
  }
  CHECK(read_metrics(file).size() == 4);
  CHECK(MetricsFile{file, 0}.path() == file);
  CHECK(read_metrics(file).empty());
  CHECK(error_of([&] { MetricsFile{folder / "no" / "metrics.jsonl", 0}; }) == 602);
}

TEST_CASE("the curve draws both losses within its frame") {
  std::vector<StepRecord> records;
  for (Extent step = 1; step <= 40; ++step) records.push_back(record(step, step % 10 == 0 ? std::optional{4.0 / double(step)} : std::nullopt));
  const std::string svg = loss_curve(records);
  CHECK(svg.starts_with("<svg "));
  CHECK(svg.ends_with("</svg>\n"));
  const auto count = [&](std::string_view what) {
    Extent found = 0;
    for (std::size_t at = 0; (at = svg.find(what, at)) != svg.npos; ++at) ++found;
    return found;
  };
  CHECK(count("<polyline") == 3);
  CHECK(count("<circle") == 4);
  CHECK(svg.find("validation, last 0.100") != svg.npos);
  CHECK(svg.find("nan") == svg.npos);
  CHECK(loss_curve({}).ends_with("</svg>\n"));
  CHECK(loss_curve({record(1)}).find("nan") == std::string::npos);
}

TEST_CASE("numbers for people are short") {
  CHECK(duration_text(0.2) == "0 s");
  CHECK(duration_text(59.6) == "1 min 0 s");
  CHECK(duration_text(12'000) == "3 h 20 min");
  CHECK(bytes_text(1023) == "1023 B");
  CHECK(bytes_text(1.5 * 1024 * 1024) == "1.5 MiB");
  CHECK(count_text(13'100'000) == "13.1 M");
  CHECK(count_text(999) == "999");
}

TEST_CASE("without a terminal progress is a plain line now and then") {
  const TemporaryFolder folder;
  const auto file = folder / "progress";
  std::FILE* to = std::fopen(file.c_str(), "w");
  REQUIRE(to);
  {
    Progress progress{{.steps = 10, .to = to, .every = std::chrono::hours{1}}};
    progress.show(record(1));
    progress.show(record(2, 1.5));
    progress.say("saved it");
    progress.flush();
    progress.flush();
  }
  CHECK(read_file(file) == "saved it\nstep 2/10  loss 2.5000  validation 1.5000  50 tokens/s  16 s left\n");
  std::rewind(to);
  {
    Progress progress{{.steps = 10, .to = to, .every = std::chrono::milliseconds{0}}};
    progress.show(record(5));
  }
  std::fclose(to);
  CHECK(read_file(file).starts_with("step 5/10  loss 1.0000  50 tokens/s  50 s left\n"));
}
