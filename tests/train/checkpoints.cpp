// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: resume
#include "io/io_support.hpp"

#include <dsx/io/atomic_file.hpp>
#include <dsx/train/checkpoints.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::error_of, test::TemporaryFolder;

namespace {

void make(const std::filesystem::path& folder, Extent step) {
  std::filesystem::create_directories(folder);
  write_file(folder / "checkpoint.json", "{\"step\": " + std::to_string(step) + "}");
}

}  // namespace

TEST_CASE("the newest complete checkpoint of a run is found by its manifest") {
  const TemporaryFolder run;
  const auto nothing = error_of([&] { newest_checkpoint(run.path()); });
  CHECK(nothing == 670);
  CHECK(nothing.says(run.path().string()));
  CHECK(error_of([&] { newest_checkpoint(run / "absent"); }) == 670);
  CHECK(checkpoint_folder(run.path(), 42) == run / "step-000042");
  make(run / "step-000999", 999), make(run / "step-1000000", 1'000'000);
  std::filesystem::create_directories(run / "step-2000000");           // no manifest: it was being removed
  make(run / "step-3000000.partial", 3'000'000);                       // never complete
  CHECK(newest_checkpoint(run.path()) == run / "step-1000000");        // not by the order of names
  make(run / "step-1500000.old", 1'500'000);                           // a crash between two renames
  CHECK(newest_checkpoint(run.path()) == run / "step-1500000.old");
  CHECK(newest_checkpoint(run / "step-000999") == run / "step-000999");
}

TEST_CASE("only the newest checkpoints are kept") {
  const TemporaryFolder run;
  for (const Extent step : {5, 10, 15, 20}) make(checkpoint_folder(run.path(), step), step);
  keep_newest(run.path(), 2);
  CHECK(!std::filesystem::exists(checkpoint_folder(run.path(), 10)));
  CHECK(std::filesystem::exists(checkpoint_folder(run.path(), 15)));
  keep_newest(run.path(), 0);  // never none
  CHECK(newest_checkpoint(run.path()) == checkpoint_folder(run.path(), 20));
}
