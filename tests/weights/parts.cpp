// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Layers frozen in part learn the rest as if nothing were frozen; and what can't be named, cut or provided is refused by its number.
#include "support/short_runs.hpp"

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

/// A layer of which each parameter may be frozen.
struct Branch {
  LayerNorm norm{width};
  ColumnLinear up{width, 2 * width, {Cut::columns}, Gelu::tanh};
  RowLinear down{2 * width, width};
  std::array<Parameter*, 5> all() { return {&norm.gain, &norm.bias, &up.weight, &up.bias, &down.weight}; }
  void parts(auto& visit) const { visit("norm", norm), visit("up", up), visit("down", down); }
  Value<Common> operator()(Value<Common> x) const { return x + fan_in(down(up(fan_out(norm(x))))); }
};
/// `frozen`: a bit for each parameter of the branch.
auto model_of(unsigned frozen) {
  Branch branch;
  for (Extent i = 0; i < 5; ++i) branch.all()[i]->trained = (frozen >> i & 1) == 0;
  return Sequential{Named{"e", Embedding{vocabulary, length, width}}, Named{"branch", branch}, Named{"h", Head{vocabulary, width}}};
}

/// What of the frozen takes memory, and whether the state's bytes are those of the trained.
struct Look {
  void operator()(auto& weights) const {
    Extent state = 0;
    for (const Bundle& b : weights.bundles().all()) {
      CHECK(b.states.size() == (b.kind.trained ? 1 : 0));
      if (!b.kind.trained) CHECK((b.gradient.size() == 0 && b.gradient_part.size() == 0 && b.own_master.size() == 0));
      for (const View& v : b.states) state += aligned(v.bytes());
      for (const Segment& s : b.segments) CHECK(s.held.trained == b.kind.trained);
    }
    CHECK(weights.mesh().session().memory.tally(Category::state).now == state);
  }
};

void check_every_subset(const Layout& layout) {
  const ShortRun start = short_run(model_of(0), layout, 0, TokenLoss{}, Look{}), all = short_run(model_of(0), layout, 1, TokenLoss{}, Look{});
  CHECK(all.thrown == "");
  CHECK(all.gradients.size() == 8);
  for (const auto& [path, values] : all.gradients) CHECK(distance(values, std::vector<double>(values.size())) > 1e-9);
  for (unsigned frozen = 1; frozen < 32; ++frozen) {
    INFO("frozen: bits of ", frozen);
    const ShortRun some = short_run(model_of(frozen), layout, 1, TokenLoss{}, Look{});
    CHECK(some.thrown == "");
    CHECK(some.losses == all.losses);
    CHECK(some.weights.size() == 8);
    for (const auto& [path, values] : some.weights) {
      INFO(path);
      const bool trained = some.gradients.contains(path);
      CHECK(values == (trained ? all : start).weights.at(path));
      if (trained) CHECK(some.gradients.at(path) == all.gradients.at(path));
    }
    CHECK(some.gradients.size() + std::popcount(frozen) == 8);
  }
}

/// A layer that names its parameters and buffers as badly as it is told to.
struct Careless {
  bool forgets_bias = false, forgets_buffer = false, names_twice = false;
  Parameter first = vector_parameter(width), second = vector_parameter(width);
  Buffer buffer{.size = 1};
  void parts(auto& visit) const {
    visit("first", first);
    if (!forgets_bias) visit(names_twice ? "first" : "second", second);
    if (!forgets_buffer) visit("buffer", buffer);
  }
  Value<Common> operator()(Value<Common> x) const {
    (void)x.pass->buffer(buffer.slot);
    return add_bias(add_bias(x, first), second);
  }
};
auto model_with(const Careless& a, std::string_view name_of_a = "a", std::string_view name_of_b = "b") {
  return Sequential{Named{"e", Embedding{vocabulary, length, width}}, Named{name_of_a, a}, Named{name_of_b, Careless{}},
                    Named{"h", Head{vocabulary, width}}};
}

/// The text of what building weights on rank 0 of a dry world says.
template <class Model, class Recipe>
std::string refusal(const Degrees& degrees, const Model& model, const Recipe& recipe) {
  Session session = Session::dry(0, degrees.ranks());
  const Mesh mesh{session, degrees};
  try {
    const Weights weights{mesh, model, recipe};
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing";
}
template <class Model>
std::string refusal(const Degrees& degrees, const Model& model) {
  return refusal(degrees, model, Layout{}.recipe());
}

auto with_branch() {
  return Sequential{Named{"e", Embedding{vocabulary, length, width}}, Named{"branch", Branch{}}, Named{"h", Head{vocabulary, width}}};
}

/// Gives a codec at one site, for matrices; none, where there is no codec.
struct Packs {
  using Slot = QuantizerSlot;
  QuantSite site = QuantSite::rest;
  const Codec* given = nullptr;
  const Codec* codec(QuantSite s, const ParameterInfo& info) const { return s == site && info.role == Role::matrix ? given : nullptr; }
};
struct Grains {
  using Slot = SummationSlot;
  bool fixed;
  bool fixed_grains() const { return fixed; }
};
struct Exchanges {
  using Slot = AttentionSlot;
  bool cuts;
  bool cuts_sequences() const { return cuts; }
};

}  // namespace

TEST_CASE("whatever of a layer is frozen, its other parameters learn as without") { check_every_subset({}); }

TEST_CASE("whatever of a layer is frozen, its other parameters learn as without, sharded and recomputed") {
  check_every_subset({.degrees = {.data = 2}, .sharding = ZeRO<3>{}, .recompute = RecomputeUnits{}});
}

TEST_CASE("a vocabulary or heads that are fewer than the tensor ranks are refused: dsx-E313") {
  const auto ends = [](Extent entries) { return Sequential{Embedding{entries, length, width}, CausalAttention{width, 2}, Head{entries, width}}; };
  CHECK(refusal({.tensor = 2}, ends(3)) == "nothing");
  CHECK(refusal({.tensor = 2}, ends(2)) == "nothing");
  CHECK(refusal({.tensor = 2}, ends(1)) == "dsx-E313: 1 rows in 1 pieces by grains of 1 can't be cut for 2 ranks along tensor");
  CHECK(refusal({.tensor = 4}, ends(3)) == "dsx-E313: 3 rows in 1 pieces by grains of 1 can't be cut for 4 ranks along tensor");
  CHECK(refusal({.tensor = 3}, ends(3)) == "dsx-E313: 24 columns in 3 pieces by grains of 4 can't be cut for 3 ranks along tensor");
}

TEST_CASE("pieces and grains that don't divide what they cut are refused on any number of ranks: dsx-E313") {
  const auto cut = [](Split split) {
    Branch branch;
    branch.up.weight.split = branch.up.bias.split = split;
    return Sequential{Named{"e", Embedding{vocabulary, length, width}}, Named{"branch", branch}, Named{"h", Head{vocabulary, width}}};
  };
  CHECK(refusal({}, cut({Cut::columns, 2, 4})) == "nothing");
  CHECK(refusal({}, cut({Cut::columns, 3, 2})) == "dsx-E313: 16 columns in 3 pieces by grains of 2 can't be cut for 1 ranks along tensor");
  CHECK(refusal({.tensor = 2}, cut({Cut::columns, 1, 5})) == "dsx-E313: 16 columns in 1 pieces by grains of 5 can't be cut for 2 ranks along tensor");
  CHECK(refusal({}, cut({Cut::columns, 1, 0})).starts_with("dsx-E313"));
}

TEST_CASE("two parameters of one path are refused, in one layer and in two of one name: dsx-E411") {
  CHECK(refusal({}, model_with({})) == "nothing");
  const std::string way_out = "; give the layers that hold them names of their own";
  CHECK(refusal({}, model_with({.names_twice = true})) == "dsx-E411: two parameters are called a.first" + way_out);
  CHECK(refusal({}, model_with({}, "same", "same")) == "dsx-E411: two parameters are called same.first" + way_out);
  CHECK(refusal({.pipe = 4}, model_with({}, "same", "same")).starts_with("dsx-E411"));
}

TEST_CASE("a parameter or a buffer that its layer's parts() doesn't name is refused when weights are made: dsx-E412") {
  CHECK(refusal({}, model_with({.forgets_bias = true})) == "dsx-E412: unit 1 uses a parameter that no parts() names");
  CHECK(refusal({}, model_with({.forgets_buffer = true})) == "dsx-E412: unit 1 uses a buffer that no parts() names");
}

TEST_CASE("a policy that asks for what isn't provided is refused, not passed over: dsx-E109") {
  const auto with = [&](Packs packs, bool fixed, bool cuts) { return refusal({}, with_branch(), Recipe{packs, Grains{fixed}, Exchanges{cuts}}); };
  CHECK(with({}, false, false) == "nothing");
  for (const QuantSite site : {QuantSite::rest, QuantSite::cache})
    CHECK(with({site, &block_int8<64>}, false, false) ==
          concat("dsx-E109: the quantizer gives int8 by 64 for branch.up.weight at ", name_of(site), ", where nothing is packed"));
  CHECK(with({}, true, false) == "nothing");
  CHECK(with({}, false, true) == "dsx-E109: the attention exchange cuts sequences; each rank attends to whole ones");
}

TEST_CASE("a codec that its site can't serve is refused: dsx-E117") {
  constexpr Codec two_bits{2, 64};
  const auto with = [&](QuantSite site, const Codec& codec) { return refusal({}, with_branch(), Recipe{Packs{site, &codec}}); };
  for (const QuantSite site : {QuantSite::gather, QuantSite::reduction, QuantSite::state}) {
    const std::string text =
        concat(" for branch.up.weight at ", name_of(site), ", where codes of 8 or 4 bits in blocks are packed: give it block_int8 or block_int4");
    const char* way = site == QuantSite::reduction ? "; signs under one scale travel by an optimizer's own reduction" : "";
    CHECK(with(site, two_bits) == "dsx-E117: the quantizer gives int2 by 64" + text + way);
    CHECK(with(site, one_bit) == "dsx-E117: the quantizer gives 1 bit" + text + way);
    CHECK(with(site, block_int4<8, Codes::asymmetric>) == "nothing");
  }
}

TEST_CASE("a second copy of packed weights that isn't parts of the first is refused: dsx-E118") {
  struct Cuts {
    using Slot = ShardingSlot;
    Axes forward, backward;
    Residency residency(const ParameterInfo&, const Mesh&) const { return {forward, backward, Axes::none, Axes::data}; }
  };
  const auto with = [&](Axes forward, Axes backward, const Codec* codec) {
    return refusal({.data = 4, .inner = 2}, with_branch(), Recipe{Cuts{forward, backward}, Packs{QuantSite::gather, codec}});
  };
  CHECK(with(Axes::data, Axes::inner, &block_int8<64>) == "nothing");
  CHECK(with(Axes::data, Axes::none, &block_int8<64>) == "nothing");
  CHECK(with(Axes::none, Axes::inner, nullptr) == "nothing");
  CHECK(with(Axes::data, Axes::outer, &block_int8<64>) ==
        "dsx-E118: the weights of branch.up.weight are gathered packed, in forward over data and in backward over outer; the second copy is packed "
        "parts of the first: cut it over some of the same axes, inner before outer, or gather exactly");
  CHECK(with(Axes::none, Axes::inner, &block_int8<64>).starts_with("dsx-E118"));
}

TEST_CASE("a quantizer beside fixed grains is refused at every site that training packs: dsx-E125") {
  const auto with = [&](Packs packs) { return refusal({}, with_branch(), Recipe{packs, Grains{true}}); };
  CHECK(with({}) == "nothing");
  for (const QuantSite site : {QuantSite::gather, QuantSite::reduction, QuantSite::state})
    CHECK(with({site, &block_int8<64>}) == concat("dsx-E125: the quantizer gives int8 by 64 for branch.up.weight at ", name_of(site),
                                                  ", and the summation fixes its grains; drop one of the two"));
}

TEST_CASE("a state that is cut over far ranks first is refused beside fixed grains: dsx-E124") {
  struct FarFirst {
    using Slot = ShardingSlot;
    Residency residency(const ParameterInfo&, const Mesh&) const { return {.state = Axes::outer}; }
  };
  const auto model = Sequential{Named{"e", Embedding{vocabulary, length, width}}, Named{"h", Head{vocabulary, width}}};
  CHECK(refusal({.data = 4, .inner = 2}, model, Recipe{FarFirst{}}) == "nothing");
  CHECK(refusal({.data = 4, .inner = 4}, model, Recipe{FarFirst{}, Reproducible{}}) == "nothing");
  CHECK(refusal({.data = 4, .inner = 2}, model, Recipe{FarFirst{}, Reproducible{}}) ==
        "dsx-E124: sums by grains are taken in slices over data, and state over outer doesn't contain them; cut over inner before outer");
}

TEST_CASE("axes along which a mesh knows no ranks are refused: dsx-E312") {
  Session session = Session::dry(0, 4);
  const Mesh mesh{session, {.data = 2, .pipe = 2}};
  CHECK(mesh.along(Axes::data).size() == 2);
  const char* text = "dsx-E312: no ranks are known along sequence; ask for one axis, or for data, outer, inner, expert or expert_data with tensor";
  CHECK_THROWS_WITH_AS((void)mesh.along(Axes::sequence), text, Error);
  CHECK_THROWS_WITH_AS((void)mesh.size(Axes::sequence), text, Error);
  CHECK(number_of([&] { (void)mesh.coordinate(Axes::tensor | Axes::pipe); }) == 312);
}

TEST_CASE("neighbours share out experts: near ranks where they are enough, and copies of an expert are near and far") {
  struct Case {
    Degrees degrees;
    std::vector<Extent> expert, near, far;  // coordinates by rank of the world
  };
  for (const Case& c : {Case{{.data = 4, .expert = 2}, {0, 1, 0, 1}, {0, 0, 0, 0}, {0, 0, 1, 1}},
                        Case{{.data = 4, .inner = 2, .expert = 2}, {0, 1, 0, 1}, {0, 0, 0, 0}, {0, 0, 1, 1}},
                        Case{{.data = 4, .inner = 4, .expert = 2}, {0, 1, 0, 1}, {0, 0, 1, 1}, {0, 0, 0, 0}},
                        Case{{.data = 8, .inner = 4, .expert = 2}, {0, 1, 0, 1, 0, 1, 0, 1}, {0, 0, 1, 1, 0, 0, 1, 1}, {0, 0, 0, 0, 1, 1, 1, 1}},
                        Case{{.data = 8, .inner = 2, .expert = 4}, {0, 1, 2, 3, 0, 1, 2, 3}, {0, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 1, 1, 1, 1}},
                        Case{{.data = 2, .tensor = 2, .expert = 2}, {0, 0, 1, 1}, {0, 0, 0, 0}, {0, 0, 0, 0}}})
    for (Rank r = 0; r < c.degrees.ranks(); ++r) {
      Session session = Session::dry(r, c.degrees.ranks());
      const Mesh mesh{session, c.degrees};
      CHECK(mesh.coordinate(Axes::expert) == c.expert[r]);
      CHECK(mesh.coordinate(Axes::expert_inner) == c.near[r]);
      CHECK(mesh.coordinate(Axes::expert_outer) == c.far[r]);
      CHECK(mesh.size(Axes::expert) * mesh.size(Axes::expert_inner) * mesh.size(Axes::expert_outer) == c.degrees.data);
      CHECK(mesh.coordinate(Axes::expert_data) == c.near[r] * mesh.size(Axes::expert_outer) + c.far[r]);
    }
}
