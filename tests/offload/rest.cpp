// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// TRAJ and BYTES of what rests off the device: the bits of everything resident, under every layout, on a device that has not a byte more
/// than planned, and whose kernels are given nothing that lies elsewhere.
// labels: traj bytes laws
// timeout: 600
#include "support/runs.hpp"

#include <doctest/doctest.h>

#include <unistd.h>

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
TEST_CASE("saved activations on the host come back before backward, with the bits of the device's") { in_all_layouts({device, device, device, host}); }
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
  for (Cell c : {Cell{Sharding::replicate, {}, Schedule::single, 1, false, Rule::adamw},
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
  const View on_device = session.memory.keep(Category::state, {4, 4}, Element::f32), on_host = session.memory.keep(Category::state, {4, 4}, Element::f32, Tier::host);
  session.launch(kernels::zero, on_device);
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
  const std::string begin = concat("dsx-E818: a kernel's argument of 4 x 4 f32 elements, 64 bytes at ", address, ", lies outside of the device, 1048576 bytes at ");
  CHECK(text_of([&] { session.launch(kernels::zero, on_host); }).starts_with(begin));
  CHECK(text_of([&] { session.launch(kernels::pass_on, on_device, Grad{on_host, false}); }).starts_with(begin));
  const auto product = [&](const kernels::Matrix& a, const kernels::Epilogue& e) {
    session.launch([](auto&&...) {}, a, kernels::Matrix{on_device}, Grad{on_device, false}, e);
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
    { const Opened inner{session.memory, v.part({1, 2}), Access::read}; }
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
