// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// RESUME: half a run, a checkpoint, the other half, against the run in one piece: bitwise on the same layout, also in a new
/// process; within TRAJ's bound on another. And checkpoints that are refused.
// labels: resume
// needs: resumed_half
#include "io/io_support.hpp"
#include "support/resumed.hpp"

#include <doctest/doctest.h>

using namespace toy;
using dsx::test::error_of;
using dsx::test::TemporaryFolder;

namespace {

constexpr Extent half = 6, whole = 12;

Run after(const Run& run) {
  Run rest = run;
  rest.losses.erase(rest.losses.begin(), rest.losses.begin() + half), rest.norms.erase(rest.norms.begin(), rest.norms.begin() + half);
  return rest;
}
void complete(const Run& run, const Cell& c) { CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints)); }

/// Trains half under `first`, the other half under `second`.
void resumes(const Cell& first, const Cell& second, double bound) {
  const TemporaryFolder folder;
  const Run straight = stretch(second, {0, whole}, {}, folder / "straight"), begun = stretch(first, {0, half}, {}, folder / "half"),
            resumed = stretch(second, {half, whole}, folder / "half", folder / "resumed");
  complete(straight, second), complete(begun, first), complete(resumed, second);
  REQUIRE(resumed.losses.size() == whole - half);
  if (bound > 0) {
    CHECK_MESSAGE(distance(resumed, after(straight)) <= bound, name_of(first) << " -> " << name_of(second));
    return;
  }
  CHECK_MESSAGE(same(resumed, after(straight)), name_of(first) << " -> " << name_of(second));
  // Moments and step too: the checkpoints are the same bytes.
  for (const char* file : {"weights.safetensors", "state.safetensors", "checkpoint.json", "beside.txt"})
    CHECK_MESSAGE(read_file(folder / "straight" / file) == read_file(folder / "resumed" / file), file << ", " << name_of(first));
  const bool owes = first.codecs.reduction && first.codecs.feedback;
  CHECK(std::filesystem::exists(folder / "resumed" / "owed.safetensors") == owes);
  if (owes) CHECK_MESSAGE(read_file(folder / "straight" / "owed.safetensors") == read_file(folder / "resumed" / "owed.safetensors"), name_of(first));
}
/// A cell where everything rests elsewhere.
Cell offloaded(Cell c, Tier tier) {
  c.rests.fill(tier);
  return c;
}
void on_one_rank(auto body) {
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  Weights weights{mesh, make_model(), AnyRecipe{AnySharding{}, AnySchedule{}, AnyOffload{}, AnyPrecision{}, AnyRecompute{}}};
  body(mesh, weights);
}

}  // namespace

TEST_CASE("a run resumed on the same layout has the bits of the run in one piece") {
  const Elements mixed = Bf16{}.elements(), single{};
  for (const Rule rule : {Rule::sgd, Rule::adamw, Rule::muon}) {
    const Cell one{.rule = rule};
    const Cell four{Sharding::zero_3, {.data = 2, .tensor = 2, .token_split = true}, Schedule::single, 2, true, rule};
    const Cell pipeline{Sharding::zero_1, {.data = 2, .pipe = 2}, Schedule::one_forward_one_backward, 2, false, rule, single};
    const Cell far{Sharding::hpz, {.data = 4, .inner = 2}, Schedule::single, 2, false, rule, mixed};
    for (const Cell& c : {one, four, pipeline, far}) resumes(c, c, 0);
    // Where something rests is no part of a checkpoint.
    resumes(offloaded(far, Tier::host), offloaded(far, Tier::disk), 0);
    resumes(offloaded(pipeline, Tier::disk), pipeline, 0);
    resumes(one, offloaded(one, Tier::host), 0);
  }
}

TEST_CASE("a run whose state rests packed and whose reductions owe is resumed with its bits") {
  const Elements mixed = Bf16{}.elements(), single{};
  for (const Codes codes : {Codes::symmetric, Codes::asymmetric})
    for (const Rule rule : {Rule::sgd, Rule::adamw, Rule::muon}) {
      const bool even = codes == Codes::symmetric;
      const Codecs codecs{&block_int8<16>, &block_int4<32>, even ? &block_int8<24> : &block_int8<24, Codes::asymmetric>, true};
      Cell cut{Sharding::zero_3, {.data = 4, .inner = 2}, Schedule::single, 2, false, rule, mixed, {}, codecs};
      Cell whole_weights{Sharding::zero_1, {.data = 2, .pipe = 2}, Schedule::one_forward_one_backward, 2, false, rule, single, {}, codecs};
      Cell copies{Sharding::mics, {.data = 4, .inner = 2}, Schedule::single, 1, false, rule, single, {}, codecs};
      Cell replicas{Sharding::replicate, {.data = 2, .tensor = 2}, Schedule::single, 1, false, rule, single, {}, codecs};
      for (const Cell& c : {cut, whole_weights, copies, replicas}) resumes(c, c, 0);
      resumes(offloaded(cut, Tier::host), offloaded(cut, Tier::disk), 0);
    }
}

TEST_CASE("packed state read by another layout is rounded once more at most, not at all where blocks begin alike") {
  Cell two{Sharding::zero_2, {.data = 2}, Schedule::single, 2, false, Rule::adamw, Elements{}, {}, {.state = &block_int8<4>}};
  Cell four{Sharding::zero_2, {.data = 4}, Schedule::single, 1, false, Rule::adamw, Elements{}, {}, {.state = &block_int8<4>}};
  Cell coarse = two;
  coarse.codecs.state = &block_int8<512>;
  const TemporaryFolder folder;
  complete(stretch(two, {0, half}, {}, folder / "two"), two);
  /// The largest distance of a moment that another layout has read, in steps of its block (of the whole tensor's largest, for a coarse one).
  const auto reread = [&](const Cell& c, const char* name) {
    complete(stretch(c, {half, half}, folder / "two", folder / name), c);
    const SafetensorsFile before{folder / "two" / "state.safetensors"}, after{folder / name / "state.safetensors"};
    double most = 0;
    for (const TensorEntry& t : before.tensors()) {
      if (!t.name.ends_with("first_moment")) continue;
      const Extent n = t.size();
      std::vector<double> x(n), y(n);
      before.copy_to(t.name, View{x.data(), {1, n}, Element::f64}), after.copy_to(t.name, View{y.data(), {1, n}, Element::f64});
      for (Extent i = 0; i < n; ++i) most = std::max(most, std::abs(x[i] - y[i]));
    }
    return most;
  };
  CHECK(reread(two, "same") == 0);
  CHECK(reread(coarse, "coarse") > 0);
  // A bundle's slices over two ranks and over four begin at multiples of 4 elements alike or not: half a step of the largest moment bounds all.
  const SafetensorsFile state{folder / "two" / "state.safetensors"};
  double largest = 0;
  for (const TensorEntry& t : state.tensors()) {
    if (!t.name.ends_with("first_moment")) continue;
    std::vector<double> x(t.size());
    state.copy_to(t.name, View{x.data(), {1, x.size()}, Element::f64});
    for (const double v : x) largest = std::max(largest, std::abs(v));
  }
  for (const Cell& c : {four, coarse}) CHECK(reread(c, "other") <= 0.5 * largest / 127 * (1 + 1e-6));
}

TEST_CASE("what reductions owe belongs to a layout: another one begins with nothing owed") {
  Cell two{Sharding::zero_2, {.data = 2}, Schedule::single, 2, false, Rule::adamw, Elements{}, {}, {.reduction = &block_int4<32>, .feedback = true}};
  Cell four{Sharding::zero_2, {.data = 4}, Schedule::single, 1, false, Rule::adamw, Elements{}, {}, two.codecs};
  const TemporaryFolder folder;
  complete(stretch(two, {0, half}, {}, folder / "two"), two);
  complete(stretch(four, {half, half}, folder / "two", folder / "four"), four);
  const SafetensorsFile of_two{folder / "two" / "owed.safetensors"}, of_four{folder / "four" / "owed.safetensors"};
  const auto all_zero = [](const SafetensorsFile& file) {
    bool zero = true;
    for (const TensorEntry& t : file.tensors())
      for (const std::byte b : file.bytes(t.name)) zero = zero && b == std::byte{0};
    return zero;
  };
  CHECK_FALSE(all_zero(of_two));
  CHECK(all_zero(of_four));
  Cell exact = two;
  exact.codecs = {};
  complete(stretch(exact, {half, half}, folder / "two", folder / "exact"), exact);
  CHECK_FALSE(std::filesystem::exists(folder / "exact" / "owed.safetensors"));
}

TEST_CASE("a run resumed on another layout stays within the bound of trajectories") {
  const Cell four{Sharding::zero_3, {.data = 2, .tensor = 2}, Schedule::single, 2, false, Rule::adamw};
  const Cell pipeline{Sharding::replicate, {.pipe = 2}, Schedule::one_forward_one_backward, 4, false, Rule::adamw};
  const Cell one{.rule = Rule::adamw};
  resumes(four, pipeline, 1e-12);
  resumes(pipeline, four, 1e-12);
  resumes(one, four, 1e-12);
  resumes(four, one, 1e-12);
  Cell near{Sharding::mics, {.data = 4, .inner = 2}, Schedule::single, 1, false, Rule::muon},
      tokens{Sharding::zero_2, {.data = 2, .tensor = 2, .pipe = 2, .token_split = true}, Schedule::gpipe, 2, true, Rule::muon};
  resumes(near, tokens, 1e-12);
}

TEST_CASE("a bfloat16 run resumed on another layout keeps its losses") {
  const Cell four{Sharding::zero_3, {.data = 2, .tensor = 2}, Schedule::single, 2, false, Rule::adamw, Bf16{}.elements()};
  const Cell pipeline{Sharding::zero_1, {.pipe = 2}, Schedule::gpipe, 4, false, Rule::adamw, Bf16{}.elements()};
  const TemporaryFolder folder;
  const Run straight = after(stretch(four, {0, whole}, {}, {}));
  complete(stretch(four, {0, half}, {}, folder / "half"), four);
  const Run resumed = stretch(pipeline, {half, whole}, folder / "half", {});
  complete(resumed, pipeline);
  REQUIRE(resumed.losses.size() == straight.losses.size());
  for (Extent i = 0; i < straight.losses.size(); ++i) CHECK(std::abs(resumed.losses[i] / straight.losses[i] - 1) <= 2e-3);
}

TEST_CASE("a run resumed in a new process writes the same bytes") {
  const TemporaryFolder folder;
  const Cell c = far_cell();
  complete(stretch(c, {0, whole}, {}, folder / "straight"), c);
  complete(stretch(c, {0, half}, {}, folder / "half"), c);
  const std::string command =
      concat("'" DSX_BINARY_DIR "/tests/programs/resumed_half' '", folder / "half", "' '", folder / "resumed", "' ", half, " ", whole);
  REQUIRE(std::system(command.c_str()) == 0);
  for (const char* file : {"weights.safetensors", "state.safetensors", "checkpoint.json", "beside.txt"})
    CHECK_MESSAGE(read_file(folder / "straight" / file) == read_file(folder / "resumed" / file), file);
}

TEST_CASE("weights alone come out of a checkpoint for a model without optimizer") {
  const TemporaryFolder folder;
  const Cell c{Sharding::zero_3, {.data = 2}, Schedule::single, 2, false, Rule::adamw, {}};
  const Run run = stretch(c, {0, 2}, {}, folder / "two");
  complete(run, c);
  on_one_rank([&](const Mesh&, auto& weights) {
    CHECK(load_weights(folder / "two", weights).text() == "of a test");
    for (const Tensor& t : run.weights) CHECK(weights.template weight<double>(t.path) == t.values);
  });
}

TEST_CASE("damaged and foreign checkpoints are refused and change nothing") {
  const TemporaryFolder folder;
  const Cell c{.rule = Rule::adamw, .elements = {}};
  complete(stretch(c, {0, 2}, {}, folder / "good"), c);
  const auto copy = [&](const char* name) {
    std::filesystem::copy(folder / "good", folder / name, std::filesystem::copy_options::recursive);
    return folder / name;
  };
  on_one_rank([&](const Mesh&, auto& weights) {
    std::optional<Trainer<std::remove_reference_t<decltype(weights)>, AnyOptimizer, TokenLoss>> adamw;
    auto& trainer = adamw.emplace(weights, optimizer_of(Rule::adamw), TokenLoss{}, TrainerOptions{.rows = 8});
    const auto before = weights.template weight<double>("token_table");
    const auto refused = [&](const std::filesystem::path& name) {
      const auto refusal = error_of([&] { (void)load(name, trainer); });
      CHECK(weights.template weight<double>("token_table") == before);
      CHECK(trainer.steps() == 0);
      return refusal;
    };
    CHECK(refused(folder / "absent") == 601);

    auto path = copy("without_manifest");
    std::filesystem::remove(path / "checkpoint.json");
    CHECK(refused(path) == 670);

    path = copy("of_another_version");
    write_file(path / "checkpoint.json", R"({"version": 2, "step": 2, "extra": null})");
    const auto refusal = refused(path);
    CHECK(refusal == 670);
    CHECK(refusal.says("version 2; this dsx reads version 1"));

    path = copy("without_step");
    write_file(path / "checkpoint.json", R"({"version": 1, "extra": null})");
    CHECK(refused(path) == 616);

    path = copy("cut_off");
    std::filesystem::resize_file(path / "state.safetensors", std::filesystem::file_size(path / "state.safetensors") - 4);
    CHECK(refused(path) == 620);

    path = copy("without_state");
    std::filesystem::remove(path / "state.safetensors");
    CHECK(refused(path) == 601);

    path = copy("of_another_shape");
    SafetensorsWriter writer{path / "weights.safetensors", [&] {
                               std::vector<TensorSpec> specs;
                               const SafetensorsFile good{folder / "good" / "weights.safetensors"};
                               for (const TensorEntry& t : good.tensors())
                                 specs.push_back({t.name, Element::f32, t.name == "token_table" ? std::vector<Extent>{1, 1} : t.dims});
                               return specs;
                             }()};
    for (const TensorSpec& spec : writer.order()) {
      Extent size = 1;
      for (const Extent d : spec.dims) size *= d;
      const std::vector<float> zeros(size);
      writer.write(spec.name, std::as_bytes(std::span{zeros}));
    }
    writer.commit();
    CHECK(refused(path) == 626);

    CHECK(error_of([&] { (void)load(folder / "good", trainer); }) == 0);
    CHECK(trainer.steps() == 2);

    // Another optimizer lacks a moment or has one too many.
    adamw.reset();
    Trainer other{weights, optimizer_of(Rule::sgd), TokenLoss{}, {.rows = 8}};
    const auto foreign = error_of([&] { (void)load(folder / "good", other); });
    CHECK(foreign == 671);
    CHECK(foreign.says("first_moment, which this model and optimizer don't have"));
  });
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  Weights small{mesh, make_gpt2({.vocabulary = vocabulary, .positions = length, .width = width, .heads = heads, .layers = 1}), Recipe{}};
  CHECK(error_of([&] { (void)load_weights(folder / "good", small); }) == 671);
}
