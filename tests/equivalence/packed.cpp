// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// TRAJ, WIRE and BYTES where weights, gradients and optimizer state are packed: runs equal a reference that rounds in the same places, and
/// each step moves and holds what the formulas say.
// labels: traj wire bytes
#include "support/packed_reference.hpp"

#include <doctest/doctest.h>

using namespace toy;

namespace {

constexpr Extent few = 6;  // steps
constexpr Codecs weights_packed{.gather = &block_int8<16>};
constexpr Codecs gradients_packed{.reduction = &block_int8<16>};
constexpr Codecs in_four_bits{.reduction = &block_int4<32>, .feedback = true};
constexpr Codecs states_packed{.state = &block_int8<16>};
constexpr Codecs uneven_states{.state = &block_int8<16, Codes::asymmetric>};
constexpr Codecs everything{&block_int8<16>, &block_int4<24, Codes::asymmetric>, &block_int8<16>, true};

Cell packed(Codecs codecs, Sharding sharding, Degrees degrees, Extent micro_batches = 1, Rule rule = Rule::adamw) {
  Cell c{sharding, degrees, Schedule::single, micro_batches, false, rule};
  c.codecs = codecs;
  return c;
}
void equals_reference(const Cell& c) {
  const Run run = train(c, recipe_of(c), few), expected = packed_reference(c, few);
  CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints));
  CHECK_MESSAGE(distance(run.norms, expected.norms, 0.1) <= 1e-10, name_of(c));
  CHECK_MESSAGE(distance(run, expected) <= 1e-10, name_of(c));
  if (!c.codecs.gather && !c.codecs.reduction && !c.codecs.state) return;
  Cell exact = c;
  exact.codecs = {};
  CHECK_MESSAGE(distance(run, train(exact, recipe_of(exact), few)) > 1e-5, name_of(c));
}

}  // namespace

TEST_CASE("the reference of packing follows a run that packs nothing") {
  for (const Rule rule : {Rule::sgd, Rule::adamw})
    for (const Sharding sharding : {Sharding::replicate, Sharding::zero_1, Sharding::zero_3, Sharding::mics})
      equals_reference(packed({}, sharding, {.data = 4, .inner = 2}, 2, rule));
}
TEST_CASE("gradients that are reduced packed equal the reference's") {
  for (const Codecs& codecs : {gradients_packed, in_four_bits})
    for (const Sharding sharding : {Sharding::replicate, Sharding::zero_1, Sharding::zero_2, Sharding::zero_3, Sharding::mics})
      for (const Degrees degrees : {Degrees{.data = 2}, Degrees{.data = 4, .inner = 2}}) equals_reference(packed(codecs, sharding, degrees, 2));
}
TEST_CASE("weights that are gathered packed equal the reference's, and masters stay whole") {
  for (const Sharding sharding : {Sharding::zero_1, Sharding::zero_2, Sharding::zero_3, Sharding::hpz, Sharding::mics})
    for (const Rule rule : {Rule::sgd, Rule::adamw}) {
      equals_reference(packed(weights_packed, sharding, {.data = 2, .inner = 2}, 1, rule));
      equals_reference(packed(weights_packed, sharding, {.data = 4, .inner = 2}, 1, rule));
    }
}
TEST_CASE("optimizer state that rests packed equals the reference's") {
  for (const Rule rule : {Rule::sgd, Rule::adamw}) {
    equals_reference(packed(states_packed, Sharding::replicate, {}, 2, rule));
    for (const Sharding sharding : {Sharding::replicate, Sharding::zero_1, Sharding::zero_3, Sharding::mics})
      for (const Codecs& codecs : {states_packed, uneven_states}) equals_reference(packed(codecs, sharding, {.data = 4, .inner = 2}, 1, rule));
  }
}
TEST_CASE("everything packed at once equals the reference, on up to eight ranks") {
  for (const Sharding sharding : {Sharding::replicate, Sharding::zero_1, Sharding::zero_2, Sharding::zero_3, Sharding::hpz, Sharding::mics}) {
    equals_reference(packed(everything, sharding, {.data = 4, .inner = 2}, 2));
    equals_reference(packed(everything, sharding, {.data = 8, .inner = 4}, 1, Rule::sgd));
  }
}

TEST_CASE("packing composes with pipelines, tensor ranks, bfloat16, Muon and offload: bytes and wire are the formulas'") {
  const Elements mixed = Bf16{}.elements();
  const auto holds = [](Cell c, Elements elements, std::array<Tier, kinds> rests = {}) {
    c.elements = elements, c.rests = rests;
    const Run run = train(c, recipe_of(c), 3);
    CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints));
  };
  for (const Sharding sharding : {Sharding::replicate, Sharding::zero_1, Sharding::zero_2, Sharding::zero_3, Sharding::hpz, Sharding::mics}) {
    Cell pipeline = packed(everything, sharding, {.data = 2, .inner = 2, .pipe = 2}, 2, Rule::muon);
    pipeline.schedule = Schedule::one_forward_one_backward;
    holds(pipeline, {});
    Cell tokens = packed(everything, sharding, {.data = 2, .tensor = 2, .pipe = 2, .token_split = true}, 2);
    tokens.schedule = Schedule::gpipe, tokens.recompute = true;
    holds(tokens, mixed);
    Cell chunks = packed(everything, sharding, {.data = 2, .pipe = 2}, 2);
    chunks.schedule = Schedule::interleaved;
    holds(chunks, mixed);
    for (const Tier tier : {Tier::host, Tier::disk}) holds(packed(everything, sharding, {.data = 4, .inner = 2}, 2), mixed, {tier, tier, tier, tier});
    holds(packed(everything, sharding, {.data = 2, .tensor = 2}, 2), {}, {Tier::device, Tier::device, Tier::host, Tier::device});
    holds(packed(everything, sharding, {.data = 2, .tensor = 2}, 2), {}, {Tier::device, Tier::host, Tier::device, Tier::device});
    holds(packed(everything, sharding, {.data = 2, .tensor = 2}, 2), {}, {Tier::host, Tier::device, Tier::device, Tier::device});
  }
}

TEST_CASE("where packed things rest doesn't change the bits") {
  for (const Sharding sharding : {Sharding::replicate, Sharding::zero_1, Sharding::zero_3, Sharding::hpz, Sharding::mics}) {
    Cell here = packed(everything, sharding, {.data = 4, .inner = 2}, 2), there = here;
    const Run resident = train(here, recipe_of(here), few);
    for (const Tier tier : {Tier::host, Tier::disk}) {
      there.rests.fill(tier);
      const Run away = train(there, recipe_of(there), few);
      CHECK_MESSAGE(away.complaints.empty(), name_of(there) << text_of(away.complaints));
      CHECK_MESSAGE(same(away, resident), name_of(there));
    }
  }
}

TEST_CASE("of a step that was given up nothing is owed, and the next one is that of a rank that owes nothing") {
  const Cell c = packed(in_four_bits, Sharding::zero_1, {.data = 4, .inner = 2});
  launch_threads(4, [&](Session& session) {
    const Mesh mesh{session, c.degrees};
    Weights weights{mesh, make_model(), recipe_of(c)};
    Trainer trainer{weights, optimizer_of(c.rule), TokenLoss{.chunk = 10}, options_of(c)};
    const auto owes = [&] {
      double most = 0;
      weights.bundles().each_owed([&](const std::string&, const View& v) {
        for (const double x : v.as<double>()) most = std::max(most, std::abs(x));
      });
      return most > 0;
    };
    const auto batches = c.feed()(1, mesh.coordinate(Axes::data));  // one rank alone has a sequence that fills the table of positions
    trainer.step(batches);
    CHECK(owes());
    const auto good = weights.weight<double>("embedding.positions");
    auto bad = good;
    bad.back() = std::numeric_limits<double>::infinity();
    weights.assign("embedding.positions", std::span<const double>{bad});
    CHECK_THROWS_AS((void)trainer.step(batches), Error);
    CHECK_FALSE(owes());
    weights.assign("embedding.positions", std::span<const double>{good});
    trainer.step(batches);
    CHECK(owes());
    weights.bundles().abandon();  // as after an exception amid a step
    CHECK_FALSE(owes());
  });
}

TEST_CASE("a gather moves half of bf16 and a scale a block, a reduction a quarter or an eighth of fp32 and the scales") {
  const auto wire_of = [](Codecs codecs, Elements elements) {
    Cell c = packed(codecs, Sharding::zero_3, {.data = 4, .inner = 2});
    c.elements = elements;
    std::array<double, 2> bytes{};
    launch_threads(4, [&](Session& session) {
      const Mesh mesh{session, c.degrees};
      Weights weights{mesh, make_model(), recipe_of(c)};
      Trainer trainer{weights, Sgd{}, TokenLoss{}, options_of(c)};
      session.traffic.clear();
      trainer.step(c.feed()(0, mesh.coordinate(Axes::data)));
      if (session.is_root())
        bytes = {session.traffic.wire_bytes(Verb::all_gather),
                 session.traffic.wire_bytes(Verb::reduce_scatter) + session.traffic.wire_bytes(Verb::all_to_all)};
    });
    return bytes;
  };
  // A rank of four sends three of its slices, or as many bytes in two hops: slices of bundles of n elements have b blocks.
  double elements = 0, hop_blocks = 0, gathers = 0, gather_blocks = 0;
  const Cell c{Sharding::zero_3, {.data = 4, .inner = 2}};
  for (const Class& k : classes_of(c, 0)) {
    const Extent part = k.size() / 4;
    elements += 3.0 * double(part);
    hop_blocks += double((2 * part + 15) / 16) + double((part + 15) / 16);
    gathers += 2 * 3.0 * double(part * k.units.size()), gather_blocks += 2 * 3.0 * double((part + 15) / 16 * k.units.size());
  }
  const Elements mixed = Bf16{}.elements();
  const auto plain = wire_of({}, mixed);
  CHECK(plain[0] == 2 * gathers);
  CHECK(plain[1] == 4 * elements);
  CHECK(wire_of({.gather = &block_int8<16>}, mixed)[0] == plain[0] / 2 + 4 * gather_blocks);
  CHECK(wire_of({.reduction = &block_int8<16>}, mixed)[1] == plain[1] / 4 + 4 * hop_blocks);
  const double odd_codes = 0.5;  // of a slice with an odd last block
  CHECK(std::abs(wire_of({.reduction = &block_int4<16>}, mixed)[1] - (plain[1] / 8 + 4 * hop_blocks)) <=
        odd_codes * 4 * double(classes_of(c, 0).size()));
}
