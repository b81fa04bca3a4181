// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// RESUME of 1-bit Adam: what each rank owes is in checkpoints, so that the same layout goes on with the same bits; another one begins with
/// nothing owed. And a step that is refused owes what it owed.
// labels: resume
#include "io/io_support.hpp"
#include "support/resumed.hpp"

#include <doctest/doctest.h>

using namespace toy;
using dsx::test::TemporaryFolder;

namespace {

constexpr Extent half = 5, whole = 10;  // two steps are exact

Cell cell(Degrees degrees, Schedule schedule = Schedule::single, Extent micro_batches = 1, Sharding sharding = Sharding::replicate) {
  return {sharding, degrees, schedule, micro_batches, false, Rule::one_bit_adam, Elements{}};
}
void complete(const Run& run, const Cell& c) { CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints)); }
std::vector<double> owed_in(const std::filesystem::path& folder) {
  std::vector<double> all;
  const SafetensorsFile file{folder / "owed.safetensors"};
  for (const TensorEntry& t : file.tensors()) {
    std::vector<float> values(t.size());
    file.copy_to(t.name, View{values.data(), {values.size(), 1}, Element::f32});
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}
Extent not_zero(const std::vector<double>& all) { return Extent(std::count_if(all.begin(), all.end(), [](double x) { return x != 0; })); }

void goes_on(const Cell& first, const Cell& second) {
  const TemporaryFolder folder;
  const Run straight = stretch(first, {0, whole}, {}, folder / "straight"), begun = stretch(first, {0, half}, {}, folder / "half"),
            resumed = stretch(second, {half, whole}, folder / "half", folder / "resumed");
  complete(straight, first), complete(begun, first), complete(resumed, second);
  CHECK(not_zero(owed_in(folder / "half")) > 100);
  for (const char* file : {"weights.safetensors", "state.safetensors", "owed.safetensors", "checkpoint.json"})
    CHECK_MESSAGE(read_file(folder / "straight" / file) == read_file(folder / "resumed" / file), file << ", " << name_of(first));
}

}  // namespace

TEST_CASE("1-bit Adam resumed on the same layout has the bits of the run in one piece, wherever its state rests") {
  const auto pipe = Schedule::one_forward_one_backward;
  Cell near = cell({.data = 4, .inner = 2}, Schedule::single, 1, Sharding::mics), mixed = cell({.data = 2, .tensor = 2});
  mixed.elements = Bf16{}.elements();
  for (const Cell& c : {cell({.data = 4}), cell({.data = 2, .pipe = 2}, pipe, 2), near, mixed}) {
    goes_on(c, c);
    Cell far = c;
    far.rests[Extent(Kind::state)] = Tier::host;
    goes_on(c, far);
    far.rests[Extent(Kind::state)] = Tier::disk;
    goes_on(far, c);
  }
}

TEST_CASE("1-bit Adam resumed on another layout begins with nothing owed, and learns on") {
  const TemporaryFolder folder;
  const Cell two = cell({.data = 2}), four = cell({.data = 4});
  complete(stretch(two, {0, half}, {}, folder / "two"), two);
  complete(stretch(four, {half, half}, folder / "two", folder / "four"), four);
  CHECK(not_zero(owed_in(folder / "two")) > 100);
  CHECK(not_zero(owed_in(folder / "four")) == 0);
  for (const Cell& c : {two, four}) {
    std::string said;
    launch_threads(c.ranks(), [&](Session& session) {
      const Mesh mesh{session, c.degrees};
      Weights weights{mesh, make_model(), recipe_of(c)};
      Trainer trainer{weights, optimizer_of(c.rule), TokenLoss{.chunk = 10}, options_of(c)};
      load(folder / "two", trainer, [&](std::string_view line) {
        if (session.is_root()) said = line;
      });
    });
    CHECK(said.starts_with("warning: what reductions owed in") == (c.degrees.data == 4));
    CHECK(said.ends_with("belongs to another layout than data=4; this run begins with nothing owed") == (c.degrees.data == 4));
  }
  const Run straight = stretch(two, {0, whole}, {}, {}), resumed = stretch(four, {half, whole}, folder / "two", {});
  complete(resumed, four);
  REQUIRE(resumed.losses.size() == whole - half);
  for (Extent i = 0; i < resumed.losses.size(); ++i) CHECK(resumed.losses[i] == doctest::Approx(straight.losses[half + i]).epsilon(0.02));
}

TEST_CASE("a step that is refused takes nothing from what 1-bit Adam owes: the next one equals that of a run without it") {
  const Cell c = cell({.data = 2});
  const auto run = [&](bool disturbed) {
    std::vector<double> losses, weights_after;
    launch_threads(c.ranks(), [&](Session& session) {
      const Mesh mesh{session, c.degrees};
      Weights weights{mesh, make_model(), recipe_of(c)};
      Trainer trainer{weights, optimizer_of(c.rule), TokenLoss{.chunk = 10}, options_of(c)};
      const std::string path = "final.norm.gain";
      for (Extent step = 0; step < 7; ++step) {
        if (disturbed && step == 5) {
          const auto good = weights.template weight<float>(path);
          std::vector<float> bad = good;
          bad[3] = std::numeric_limits<float>::quiet_NaN();
          weights.assign(path, std::span<const float>{bad});
          CHECK(dsx::test::error_of([&] { trainer.step(c.feed()(step, mesh.coordinate(Axes::data))); }) == 409);
          weights.assign(path, std::span<const float>{good});
        }
        const Verdict v = trainer.step(c.feed()(step, mesh.coordinate(Axes::data)));
        if (session.is_root()) losses.push_back(v.loss);
      }
      auto all = weights.template weight<double>("token_table");
      if (session.is_root()) weights_after = std::move(all);
    });
    return std::pair{losses, weights_after};
  };
  CHECK(run(true) == run(false));
}
