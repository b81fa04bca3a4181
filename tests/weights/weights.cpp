// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Weights over ranks: where they start, how they are given and read whole, what freezes, and what is refused.
#include "support/workbench.hpp"

#include <dsx/dsx.hpp>

#include <doctest/doctest.h>

#include <map>

using namespace dsx;

namespace {

using Chosen = Recipe<AnySharding, AnyPrecision>;
constexpr Gpt2Shape shape{.vocabulary = 13, .positions = 8, .width = 8, .heads = 2, .layers = 2};

using Values = std::map<std::string, std::vector<float>>;
template <class W>
Values all_of(const W& weights) {
  Values values;
  for (const ParameterRecord& r : weights.records()) values[r.path] = weights.weight(r.path);
  return values;
}

/// Layers that share a bias: on the residual stream, or on whole rows, where each rank's gradient is a term of a sum.
struct Tied {
  Parameter bias;
  explicit Tied(Parameter p) : bias{p} { bias.tie = "shared"; }
  void parts(auto& visit) const { visit("bias", bias); }
  Value<Common> operator()(Value<Common> x) const { return add_bias(x, bias); }
};
struct TiedOnWholeRows {
  Parameter bias{vector_parameter(8)};
  ColumnLinear up{8, 12};
  RowLinear down{12, 8};
  TiedOnWholeRows() { bias.tie = "shared"; }
  void parts(auto& visit) const { visit("bias", bias), visit("up", up), visit("down", down); }
  Value<Common> operator()(Value<Common> x) const { return fan_in(down(up(add_bias(fan_out(x), bias)))); }
};
/// A layer that freezes what is given to it.
struct Frozen {
  LayerNorm norm{8};
  Mlp mlp{8, 12};
  Frozen() {
    for (Parameter* p : {&norm.gain, &mlp.up.weight, &mlp.down_bias}) p->trained = false;
  }
  void parts(auto& visit) const { visit("norm", norm), visit("mlp", mlp); }
  Value<Common> operator()(Value<Common> x) const { return x + mlp(norm(x)); }
};
using FrozenModel = Sequential<Named<Embedding>, Named<Frozen>, Named<Head>>;
FrozenModel frozen_model() { return FrozenModel{Named{"embedding", Embedding{16, 8, 8}}, Named{"middle", Frozen{}}, Named{"head", Head{16, 8}}}; }

/// The text of what building weights on rank 0 of a dry world says.
template <class Model>
std::string refusal(Degrees degrees, const Model& model, AnySharding sharding = {}) {
  Session session = Session::dry(0, degrees.ranks());
  const Mesh mesh{session, degrees};
  try {
    const Weights weights{mesh, model, Chosen{sharding, Fp32{}}};
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing";
}

/// A user's policy that answers the same for every class.
struct Fixed {
  using Slot = ShardingSlot;
  Residency answer;
  Residency residency(const ParameterInfo&, const Mesh&) const { return answer; }
};

}  // namespace

TEST_CASE("weights start the same on every layout, and otherwise by seed") {
  const auto start = [](AnySharding sharding, std::uint64_t seed = 1) {
    return [sharding, seed](const Mesh& mesh) { return all_of(Weights{mesh, make_gpt2(shape), Chosen{sharding, Fp32{}}, seed}); };
  };
  const Values one = test::on_one_rank(start(Replicate{}));
  CHECK(one.size() == 28);
  CHECK(one == test::on_one_rank(start(ZeRO<3>{})));
  CHECK(one != test::on_one_rank(start(Replicate{}, 2)));
  for (const Degrees& degrees : {Degrees{.data = 2}, Degrees{.tensor = 2}, Degrees{.pipe = 2}, Degrees{.data = 2, .tensor = 2}})
    for (const AnySharding& sharding : {AnySharding{Replicate{}}, AnySharding{ZeRO<1>{}}, AnySharding{ZeRO<3>{}}})
      for (const Values& here : test::on_ranks(degrees, start(sharding))) CHECK(here == one);
  double sum = 0, squares = 0;
  for (const float w : one.at("blocks.0.mlp.up.weight")) sum += double(w), squares += double(w) * double(w);
  CHECK(std::abs(sum / 256) < 4 * 0.02 / 16);
  CHECK(std::sqrt(squares / 256) == doctest::Approx(0.02).epsilon(0.2));
  CHECK(one.at("blocks.0.mlp.up.weight") != one.at("blocks.1.mlp.up.weight"));
  CHECK(one.at("final.norm.gain") == std::vector<float>(8, 1));
}

TEST_CASE("what is assigned whole is collected whole, whoever holds it") {
  for (const Degrees& degrees : {Degrees{}, Degrees{.data = 2, .tensor = 2}, Degrees{.data = 4, .inner = 2}, Degrees{.tensor = 2, .pipe = 2}})
    for (const AnySharding& sharding : {AnySharding{Replicate{}}, AnySharding{ZeRO<3>{}}})
      for (const bool same : test::on_ranks(degrees, [&](const Mesh& mesh) -> std::uint8_t {
             Weights weights{mesh, make_gpt2(shape), Chosen{sharding, AnyPrecision{Bf16{}}}};
             Values given;
             for (const ParameterRecord& r : weights.records()) {
               for (Extent i = 0; i < r.shape.size(); ++i) given[r.path].push_back(1 + float(i) * 0x1p-12F);  // more digits than bf16 has
               weights.assign(r.path, std::span<const float>{given[r.path]});
             }
             return all_of(weights) == given;
           }))
        CHECK(same);
}

TEST_CASE("each element of a class is counted by one rank") {
  for (const Degrees& degrees : {Degrees{}, Degrees{.data = 2, .tensor = 2}, Degrees{.data = 4, .inner = 2}, Degrees{.data = 3}})
    for (const AnySharding& sharding : {AnySharding{Replicate{}}, AnySharding{ZeRO<1>{}}, AnySharding{ZeRO<3>{}}, AnySharding{MiCS{}}}) {
      std::map<Extent, Extent> counted, size;  // by class
      std::map<Extent, bool> cut;
      for (Rank r = 0; r < degrees.ranks(); ++r) {
        Session session = Session::dry(r, degrees.ranks());
        const Mesh mesh{session, degrees};
        const Weights weights{mesh, make_gpt2(shape), Chosen{sharding, Fp32{}}};
        Extent index = 0;
        for (const Bundle& b : weights.bundles().all()) {
          counted[index] += b.counted.size(), cut[index] = any(b.kind.split_over);
          size[index] += b.size;
          CHECK(b.counted.begin >= b.mine.begin);
          CHECK(b.counted.end <= b.mine.end);
          ++index;
        }
      }
      for (const auto& [index, n] : counted) CHECK(n == size[index] / (cut[index] ? degrees.data : degrees.ranks()));
    }
}

TEST_CASE("frozen parameters have no gradient and no state, and never move") {
  for (const AnySharding& sharding : {AnySharding{Replicate{}}, AnySharding{ZeRO<1>{}}, AnySharding{ZeRO<3>{}}})
    test::on_ranks({.data = 2}, [&](const Mesh& mesh) {
      Weights weights{mesh, frozen_model(), Chosen{sharding, Fp32{}}};
      Trainer trainer{weights, AdamW{.rate = 0.1}, TokenLoss{}, {.rows = 8}};
      const Values before = all_of(weights);
      MicroBatch batch;
      const std::vector<int> ids{1, 5, 3, 9}, targets{5, 3, 9, 2};
      batch.add(ids, targets, 4 * mesh.coordinate(Axes::data));
      for (int step = 0; step < 2; ++step) trainer.step(std::span{&batch, 1});
      Extent frozen = 0;
      for (const ParameterRecord& r : weights.records()) {
        INFO(r.path);
        CHECK((weights.weight(r.path) == before.at(r.path)) == !r.trained);
        frozen += !r.trained;
      }
      CHECK(frozen == 3);
      for (const Bundle& b : weights.bundles().all()) {
        if (b.kind.trained) continue;
        CHECK(b.states.empty());
        CHECK((b.gradient.size() == 0 && b.gradient_part.size() == 0 && b.own_master.size() == 0));
      }
      return 0;
    });
}

TEST_CASE("a tied parameter is one, and its gradient the sum over its uses") {
  test::on_one_rank([](const Mesh& mesh) {
    const Parameter bias = vector_parameter(8);
    Weights weights{mesh, Sequential{Named{"embedding", Embedding{16, 8, 8}}, Tied{bias}, Tied{bias}, Named{"head", Head{16, 8}}}, Recipe{Fp64{}}};
    CHECK(weights.records().size() == 4);
    CHECK(weights.parameters() == 16 * 8 + 8 * 8 + 8 + 16 * 8);
    Trainer trainer{weights, Sgd{}, TokenLoss{}, {.rows = 8}};
    MicroBatch batch;
    const std::vector<int> ids{1, 5, 3, 9}, targets{5, 3, 9, 2};
    batch.add(ids, targets, 0);
    trainer.accumulate(std::span{&batch, 1});
    const std::vector<double> gradient = weights.gradient<double>("shared");
    for (Extent i = 0; i < 8; ++i) {
      const auto loss_at = [&](double by) {
        std::vector<double> moved(8);
        moved[i] = by;
        weights.assign("shared", std::span<const double>{moved});
        trainer.accumulate(std::span{&batch, 1});
        return trainer.verdict().loss;
      };
      CHECK(gradient[i] == doctest::Approx((loss_at(1e-4) - loss_at(-1e-4)) / 2e-4).epsilon(1e-5));
    }
    return 0;
  });
}

TEST_CASE("tied uses that disagree are refused: dsx-E404") {
  const auto model = [](const Tied& a, const Tied& b) { return Sequential{Embedding{16, 8, 8}, a, b, Head{16, 8}}; };
  const Parameter eight = vector_parameter(8);
  Parameter frozen = eight;
  frozen.trained = false;
  CHECK(refusal({.tensor = 2}, model(Tied{eight}, Tied{eight})) == "nothing");
  CHECK(refusal({}, model(Tied{eight}, Tied{vector_parameter(9)}))
            .starts_with("dsx-E404: the uses of tied parameter shared disagree: one is 1 x 8, another 1 x 9"));
  CHECK(refusal({}, model(Tied{eight}, Tied{frozen})).starts_with("dsx-E404"));
  const Sequential on_both{Embedding{16, 8, 8}, Tied{eight}, TiedOnWholeRows{}, Head{16, 8}};
  CHECK(refusal({}, on_both) == "nothing");
  CHECK(refusal({.tensor = 2}, on_both) == "dsx-E404: the uses of tied parameter shared sum its gradient over data and over data+tensor");
}

TEST_CASE("two parameters of one path are refused: dsx-E411") {
  CHECK(refusal({}, Sequential{Named{"x", Embedding{16, 8, 8}}, Named{"x", Bias{8}}, Named{"x", Bias{8}}, Head{16, 8}}) ==
        "dsx-E411: two parameters are called x.bias; give the layers that hold them names of their own");
}

TEST_CASE("fewer units than stages are refused: dsx-E303") {
  CHECK(refusal({.pipe = 5}, make_gpt2(shape)) == "dsx-E303: the model's 4 units can't make 5 pipeline stages");
  CHECK(refusal({.pipe = 4}, make_gpt2(shape)) == "nothing");
}

TEST_CASE("residencies that don't nest are refused: dsx-E103, dsx-E104") {
  const Degrees degrees{.data = 4, .inner = 2};
  const auto with = [&](Residency r) { return refusal(degrees, make_gpt2(shape), Fixed{r}).substr(0, 8); };
  CHECK(with({}) == "nothing");
  CHECK(with({.forward = Axes::inner, .backward = Axes::inner, .gradients = Axes::inner, .state = Axes::data}) == "nothing");
  CHECK(with({.forward = Axes::data, .backward = Axes::data, .state = Axes::none}) == "dsx-E103");
  CHECK(with({.gradients = Axes::data, .state = Axes::inner}) == "dsx-E103");
  CHECK(with({.state = Axes::pipe}) == "dsx-E103");
  CHECK(with({.forward = Axes::outer, .backward = Axes::outer, .gradients = Axes::data, .state = Axes::data}) == "dsx-E104");
}

TEST_CASE("unknown paths and wrong sizes are refused: dsx-E406, dsx-E407") {
  test::on_one_rank([](const Mesh& mesh) {
    Weights weights{mesh, make_gpt2(shape), Recipe{}};
    const std::vector<float> three(3);
    CHECK_THROWS_WITH_AS(weights.assign("final.norm.gain", std::span<const float>{three}), "dsx-E407: final.norm.gain has 8 elements, given 3",
                         Error);
    CHECK_THROWS_WITH_AS(weights.assign("final.gain", std::span<const float>{three}),
                         "dsx-E406: nothing is called final.gain among 28 tensors; the first is token_table", Error);
    CHECK_THROWS_WITH_AS((void)weights.weight("wte"), "dsx-E406: nothing is called wte among 28 tensors; the first is token_table", Error);
    return 0;
  });
}
