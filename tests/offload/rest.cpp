// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// TRAJ and BYTES of what rests off the device: the bits of everything resident, under every layout, on a device that has not a byte more
/// than planned, and whose kernels are given nothing that lies elsewhere.
// labels: traj bytes laws
// timeout: 600
#include "support/runs.hpp"

#include <dsx/infer/generator.hpp>
#include <dsx/train/report.hpp>

#include <doctest/doctest.h>

#include <unistd.h>
#include <filesystem>

using namespace toy;

namespace {

using Tiers = std::array<Tier, kinds>;  // weights, gradients, state, activations
constexpr Tier device = Tier::device, host = Tier::host, disk = Tier::disk;
constexpr Extent few = 4;

/// A cell with and without offload: the same bits, bytes as planned, each kind where it should rest.
void same_bits(Cell c, const Tiers& rests, Extent count = few) {
  c.rests = {};
  const Run resident = train(c, recipe_of(c), count);
  c.rests = rests;
  const Run offloaded = train(c, recipe_of(c), count);
  CHECK_MESSAGE(resident.complaints.empty(), name_of(c) << text_of(resident.complaints));
  CHECK_MESSAGE(offloaded.complaints.empty(), name_of(c) << text_of(offloaded.complaints));
  CHECK_MESSAGE(same(offloaded, resident), name_of(c) << ": other bits than resident");
}

/// Layouts that together need every mechanism of bundles, with each optimizer and precision.
std::vector<Cell> layouts() {
  const Elements exact{Element::f64, Element::f64, Element::f64}, single{}, mixed = Bf16{}.elements();
  return {
      {Sharding::replicate, {}, Schedule::single, 2, false, Rule::adamw, exact},
      {Sharding::replicate, {.data = 2}, Schedule::single, 2, true, Rule::muon, single},
      {Sharding::zero_1, {.data = 2, .tensor = 2}, Schedule::single, 2, false, Rule::muon, mixed},
      {Sharding::zero_2, {.data = 2}, Schedule::single, 2, false, Rule::adamw, mixed},
      {Sharding::zero_2, {.data = 2, .tensor = 2, .pipe = 2}, Schedule::gpipe, 2, true, Rule::adamw, exact},
      {Sharding::zero_3, {.data = 2, .tensor = 2, .token_split = true}, Schedule::single, 1, true, Rule::sgd, exact},
      {Sharding::zero_3, {.data = 2, .pipe = 2}, Schedule::one_forward_one_backward, 3, false, Rule::adamw, mixed},
      {Sharding::zero_3, {.data = 2, .pipe = 2}, Schedule::interleaved, 2, false, Rule::muon, exact},
      {Sharding::hpz, {.data = 4, .inner = 2}, Schedule::single, 2, false, Rule::adamw, mixed},
      {Sharding::mics, {.data = 4, .inner = 2, .tensor = 2}, Schedule::single, 2, false, Rule::muon, exact},
  };
}
void in_all_layouts(const Tiers& rests) {
  for (const Cell& c : layouts()) same_bits(c, rests);
}

}  // namespace

TEST_CASE("optimizer state on the host: the update runs there, with the bits of the device's") { in_all_layouts({device, device, host, device}); }

TEST_CASE("gradients on the host are added up there, with the bits of the device's") { in_all_layouts({device, host, device, device}); }
TEST_CASE("weights on the host come to the device unit by unit, with the bits of the device's") { in_all_layouts({host, device, device, device}); }
TEST_CASE("saved activations on the host come back before backward, with the bits of the device's") {
  in_all_layouts({device, device, device, host});
}
TEST_CASE("kinds on the host together have the bits of the device's") {
  in_all_layouts({device, host, host, device});
  in_all_layouts({host, device, host, device});
  in_all_layouts({host, host, device, device});
  in_all_layouts({host, host, host, host});
}

TEST_CASE("each kind on the disk has the bits of the device's") {
  for (Extent kind = 0; kind < kinds; ++kind) {
    Tiers rests{};
    rests[kind] = disk;
    in_all_layouts(rests);
  }
}
TEST_CASE("kinds on the disk, the host and the device together have the bits of the device's") {
  in_all_layouts({disk, disk, disk, disk});
  in_all_layouts({host, disk, disk, host});
  in_all_layouts({device, host, disk, disk});
}

TEST_CASE("twenty steps with optimizer state on the host equal one rank") {
  const Run one = train({.rule = Rule::adamw});
  for (Cell c :
       {Cell{Sharding::replicate, {}, Schedule::single, 1, false, Rule::adamw},
        Cell{Sharding::zero_3, {.data = 2, .tensor = 2, .pipe = 2, .token_split = true}, Schedule::one_forward_one_backward, 2, true, Rule::adamw}}) {
    c.rests = {device, device, host, device};
    const Run run = train(c);
    CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints));
    CHECK_MESSAGE(distance(run, one) <= 1e-12, name_of(c));
  }
}

TEST_CASE("a device with a line less than the plan is refused with the values: dsx-E817") {
  const Cell c{Sharding::replicate, {}, Schedule::single, 1, false, Rule::adamw};
  const auto train_on = [&](Extent bytes) {
    Session session{self_transport(), dsx::Place::cpu, {.device_bytes = bytes}};
    const Mesh mesh{session, {}};
    Weights weights{mesh, make_model(), Recipe{Rest<OptimizerState>{}, Fp64{}}};
    Trainer trainer{weights, optimizer_of(c.rule), TokenLoss{.chunk = 10}, options_of(c)};
    trainer.step(c.feed()(0, 0));
    return session.memory.budget()->taken();
  };
  Session plan = Session::dry(0, 1);
  const Mesh mesh{plan, {}};
  Weights weights{mesh, make_model(), Recipe{Rest<OptimizerState>{}, Fp64{}}};
  const Trainer trainer{weights, optimizer_of(c.rule), TokenLoss{.chunk = 10}, options_of(c)};
  const Extent bytes = plan.memory.peak_bytes();
  CHECK(train_on(bytes) == bytes);
  CHECK_THROWS_WITH_AS(train_on(bytes - 1), doctest::Contains("dsx-E817"), Error);
  CHECK_THROWS_WITH_AS(train_on(bytes - 1), doctest::Contains(concat(" bytes don't fit on a device of ", bytes - 1, ", of which ").c_str()), Error);
}

TEST_CASE("a kernel that is given what lies off the bounded device is refused with address and size: dsx-E818") {
  Session session{self_transport(), dsx::Place::cpu, {.device_bytes = 1_MiB}};
  const View on_device = session.memory.keep(Category::state, {4, 4}, Element::f32),
             on_host = session.memory.keep(Category::state, {4, 4}, Element::f32, Tier::host);
  const auto nothing = [](auto&&...) {};  // a kernel that touched closed memory would end the program
  session.launch(nothing, on_device);
  const auto text_of = [](const auto& f) -> std::string {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "nothing";
  };
  char address[32];
  std::snprintf(address, sizeof address, "%p", on_host.data);
  const std::string begin =
      concat("dsx-E818: a kernel's argument of 4 x 4 f32 elements, 64 bytes at ", address, ", lies outside of the device, 1048576 bytes at ");
  CHECK_THROWS_WITH_AS(session.launch(nothing, on_host), doctest::Contains("dsx-E818"), Error);
  CHECK(text_of([&] { session.launch(nothing, on_host); }).starts_with(begin));
  CHECK(text_of([&] { session.launch(nothing, on_device, Grad{on_host, false}); }).starts_with(begin));
  const auto product = [&](const kernels::Matrix& a, const kernels::Epilogue& e) {
    session.launch(nothing, a, kernels::Matrix{on_device}, Grad{on_device, false}, e);
  };
  CHECK(text_of([&] { product({on_host}, {}); }).starts_with(begin));
  CHECK(text_of([&] { product({on_device}, {.bias_N = on_host}); }).starts_with(begin));
  CHECK(text_of([&] { product({on_device}, {}); }) == "nothing");
  {
    const HostScope host{session};
    const Opened open{session.memory, on_host, Access::write};
    session.launch(kernels::zero, open.view());
    CHECK(text_of([&] { session.launch(kernels::zero, on_device); }).ends_with(", and the kernel runs on the host"));
  }
  session.launch(kernels::zero, on_device);
  CHECK_THROWS_WITH_AS((Session{self_transport(), dsx::Place::cpu, {.device_bytes = Extent(1) << 60}}), doctest::Contains("dsx-E803"), Error);
}

TEST_CASE("what rests on the host can be touched only while it is open") {
  Session session{self_transport()};
  const View v = session.memory.keep(Category::state, {3, 1}, Element::f64, Tier::host);
  const auto readable = [&] {
    // Asks the operating system, which answers instead of stopping the program.
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const bool can = write(ends[1], v.data, 1) == 1;
    close(ends[0]), close(ends[1]);
    return can;
  };
  CHECK_FALSE(readable());
  {
    const Opened outer{session.memory, v, Access::update};
    CHECK(readable());
    {
      const Opened inner{session.memory, v.part({1, 2}), Access::read};
    }
    CHECK(readable());
    CHECK(v.as<double>()[0] == 0);
    v.as<double>()[2] = 7;
  }
  CHECK_FALSE(readable());
  session.read(v, [&](View here) { CHECK(here.as<double>()[2] == 7); });
  session.edit(v, [&](View here) { here.as<double>()[0] = 5; });
  CHECK_FALSE(readable());
  const View copy = session.memory.keep(Category::state, {3, 1}, Element::f64);
  session.move(v, copy);
  CHECK((copy.as<double>()[0] == 5 && copy.as<double>()[2] == 7));
  CHECK_FALSE(readable());
  CHECK(session.memory.tally(Category::state, Tier::host).now == 64);
  session.memory.give_back(Category::state, v, Tier::host);
  CHECK(session.memory.tally(Category::state, Tier::host).now == 0);
}

TEST_CASE("a stack of blocks saves two neighbours' values on the device, and the rest where it rests") {
  const auto saved = [](Extent layers, const auto& offload, const auto& recompute, Tier tier) {
    Session plan = Session::dry(0, 1);
    const Mesh mesh{plan, {}};
    Weights weights{mesh, make_gpt2({.vocabulary = 64, .positions = 128, .width = 64, .heads = 4, .layers = layers, .dropout = 0.1}),
                    Recipe{offload, recompute}};
    const Trainer trainer{weights, Sgd{}, TokenLoss{}, {.rows = 128}};
    return plan.memory.tally(Category::saved, tier).peak;
  };
  const auto check = [&](const auto& recompute, Tier tier) {
    const Rest<Activations> away{tier};
    const Extent block = saved(6, Resident{}, recompute, device) - saved(5, Resident{}, recompute, device);
    CHECK(saved(12, away, recompute, device) == saved(6, away, recompute, device));
    CHECK(saved(12, away, recompute, tier) - saved(6, away, recompute, tier) == 6 * block);
    return std::pair{saved(6, away, recompute, device), block};
  };
  for (const Tier tier : {host, disk}) {
    const auto [window, block] = check(KeepActivations{}, tier);
    CHECK(window == 2 * block);
    // What is played again lies in the window beside what came back.
    const auto [played, value] = check(RecomputeUnits{}, tier);
    CHECK(value == 128 * 64 * sizeof(float));
    CHECK(played <= 2 * value + block);
  }
}

TEST_CASE("evaluation and generation give the same bits wherever weights rest") {
  const auto opinions = [](const AnyOffload& offload) {
    std::vector<double> all;
    launch_threads(2, [&](Session& session) {
      const Mesh mesh{session, {.data = 2}};
      Weights weights{mesh, make_gpt2({.vocabulary = 29, .positions = 16, .width = 16, .heads = 2, .layers = 3}),
                      AnyRecipe{AnySharding{ZeRO<3>{}}, offload}};
      Evaluator evaluator{weights, TokenLoss{}, 64};
      const Feed feed{2, 1};
      for (Extent step = 0; step < 2; ++step) {
        const double loss = evaluator.loss(feed(step, mesh.coordinate(Axes::data)));
        if (session.is_root()) all.push_back(loss);
      }
      Generator generator{weights, {.sequences = 2, .length = 16, .vocabulary = 29}};
      const auto texts = generator.generate(std::vector<std::vector<int>>{{3, 5, 7}, {11}}, 8, {.temperature = 0});
      if (session.is_root())
        for (const auto& text : texts) all.insert(all.end(), text.begin(), text.end());
    });
    return all;
  };
  const auto resident = opinions(Resident{});
  CHECK(resident.size() == 2 + 2 * 8);
  for (const Tier tier : {host, disk}) CHECK(opinions(Rest<Parameters>{tier}) == resident);
}

namespace {

/// State on a disk that is watched.
struct Observed {
  using Slot = OffloadSlot;
  std::vector<DiskEvent>* events;
  Extent pool;
  Tier rests(Kind kind, const ParameterInfo&) const { return kind == Kind::state ? Tier::disk : Tier::device; }
  DiskOptions disk() const {
    return {.resident_bytes = pool, .observer = [to = events](const DiskEvent& e) { to->push_back(e); }};
  }
};

/// Everything on the disk of a folder that each rank has of its own.
struct OwnFolder {
  using Slot = OffloadSlot;
  std::filesystem::path folder;
  Tier rests(Kind, const ParameterInfo&) const { return Tier::disk; }
  DiskOptions disk() const { return {.folder = folder.string(), .resident_bytes = 48_KiB}; }
};

}  // namespace

TEST_CASE("the next bundle's state is on its way from the disk while one is updated, and the last one's on its way back") {
  std::vector<DiskEvent> events;
  Extent state = 0;
  {
    Session plan = Session::dry(0, 1);
    const Mesh mesh{plan, {}};
    Weights weights{mesh, make_model(), Recipe{Observed{nullptr, 1_MiB}}};
    for (const Bundle& b : weights.bundles().all()) state += 3 * round_up(b.size * sizeof(float), 4'096);  // master and moments
  }
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  // Less than all state, so that each block is read in each step, and enough for what is on its way.
  Weights weights{mesh, make_model(), Recipe{Observed{&events, state * 3 / 4}}};
  Trainer trainer{weights, optimizer_of(Rule::adamw), TokenLoss{.chunk = 10}, {.rows = 64}};
  const Feed feed{};
  trainer.step(feed(0, 0));
  events.clear();
  trainer.step(feed(2, 0));
  // Of each block: when it was asked for, opened, closed, and asked to be written.
  using What = DiskEvent::What;
  const auto when = [&](What what, const void* block) {
    return std::find_if(events.begin(), events.end(), [&](const DiskEvent& e) { return e.what == what && e.resting == block; }) - events.begin();
  };
  std::vector<const Bundle*> trained;
  for (const Bundle& b : weights.bundles().all()) trained.push_back(&b);
  REQUIRE(trained.size() > 8);
  for (Extent i = 1; i < trained.size(); ++i)
    for (Extent state = 0; state < 2; ++state) {
      const void* const now = trained[i]->states[state].data;
      const void* const before = trained[i - 1]->states[state].data;
      CHECK(when(What::read, now) < when(What::opened, before));
      CHECK(when(What::write, before) < when(What::opened, now));
      CHECK(when(What::opened, before) < when(What::closed, before));
      CHECK(when(What::closed, now) < std::ssize(events));
    }
}

TEST_CASE("a folder that one rank lacks and a file that one rank loses end all ranks, and leave nothing behind") {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / concat("dsx_rest_test_", Extent(getpid()));
  const auto of_rank = [&](Rank r) { return folder / concat("rank", r); };
  const auto text_of = [&](bool missing, bool cut) -> std::string {
    for (Rank r = 0; r < 4; ++r) std::filesystem::create_directories(of_rank(r));
    if (missing) std::filesystem::remove(of_rank(2));
    std::string text = "nothing";
    try {
      launch_threads(4,
                     [&](Session& session) {
                       const Mesh mesh{session, {.data = 2, .pipe = 2}};
                       Weights weights{mesh, make_model(), Recipe{ZeRO<2>{}, OneForwardOneBackward{}, OwnFolder{of_rank(session.rank())}}};
                       Trainer trainer{weights, optimizer_of(Rule::adamw), TokenLoss{.chunk = 10}, {.micro_batches = 2, .rows = Feed{2, 2}.rows()}};
                       for (Extent step = 0; step < 3; ++step) {
                         if (cut && step == 2 && session.rank() == 1)
                           for (const auto& file : std::filesystem::directory_iterator{of_rank(1)}) std::filesystem::resize_file(file.path(), 5'000);
                         trainer.step(Feed{2, 2}(step, mesh.coordinate(Axes::data)));
                       }
                     },
                     {.time_limit = std::chrono::seconds{20}});
    } catch (const Error& e) {
      text = e.what();
    }
    for (Rank r = 0; r < 4; ++r)
      if (!(missing && r == 2)) CHECK(std::filesystem::is_empty(of_rank(r)));
    std::filesystem::remove_all(folder);
    return text;
  };
  CHECK(text_of(false, false) == "nothing");
  CHECK(text_of(true, false) == concat("dsx-E819: rank 2: what rests on the disk should lie in \"", of_rank(2).string(),
                                       "\", which is no folder: No such file or directory"));
  const std::string cut = text_of(false, true);
  INFO(cut);
  CHECK(cut.starts_with("dsx-E823: rank 1: the file " + of_rank(1).string()));
  CHECK(cut.find(" was cut off: of ") != std::string::npos);
}

TEST_CASE("a session has one disk") {
  Session session{self_transport()};
  session.memory.use_disk({.folder = "/tmp"});
  session.memory.use_disk({.folder = "/tmp"});
  CHECK(session.memory.tally(Category::scratch, host).peak == 64_MiB);
  CHECK_THROWS_WITH_AS(
      session.memory.use_disk({.folder = "/"}),
      "dsx-E819: what rests on the disk lies in \"/tmp\" with 67108864 bytes in memory; a session has one disk, and \"/\" with 67108864 is asked for",
      Error);
}

TEST_CASE("a report lists what rests on each tier") {
  Session plan = Session::dry(0, 2);
  const Mesh mesh{plan, {.data = 2}};
  Weights weights{mesh, make_model(), Recipe{ZeRO<2>{}, Rest<OptimizerState, Activations>{host}}};
  const Trainer trainer{weights, optimizer_of(Rule::adamw), TokenLoss{.chunk = 10}, {.rows = 64}};
  const std::string text = describe(trainer, plan.traffic);
  CHECK(text.find("\n  state on the host ") != std::string::npos);
  CHECK(text.find("\n  saved on the host ") != std::string::npos);
  CHECK(text.find(concat("  ", plan.memory.peak_bytes(host), " bytes\n")) != std::string::npos);
  CHECK(text.find("weights on the host") == std::string::npos);
  CHECK(text.find("on the disk") == std::string::npos);
}
