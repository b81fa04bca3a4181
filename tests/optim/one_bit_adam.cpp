// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold
/// 1-bit Adam on gradients that a test gives each rank: the golden runs, the bound of the norm, what stays where it is, what is refused.
#include "support/golden.hpp"
#include "support/raw_parameters.hpp"

#include <dsx/optim/any_optimizer.hpp>
#include <dsx/precision/bf16.hpp>
#include <dsx/sharding/mics.hpp>
#include <dsx/sharding/zero.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::golden_parameters;
using test::numbers;
using test::part_of;
using test::relative;

namespace {

using Tensors = std::map<std::string, std::vector<double>>;

const SafetensorsFile& file() {
  static const SafetensorsFile opened{test::golden("optim/onebit.safetensors")};
  return opened;
}
auto golden_model() {
  test::RawParameters raw;
  for (const auto& [name, shape] : golden_parameters) raw.parameters.push_back({name, Parameter{shape}});
  return Sequential{Named{"raw", raw}};
}
OneBitAdam golden_rule() { return {.rate = 1e-2, .beta_1 = 0.9, .beta_2 = 0.95, .epsilon = 1e-8, .decay = 0.01, .freeze_step = 4}; }

/// A step whose gradients are given: in an exact one their sum, else this rank's term of it.
template <class Trainer>
Verdict step_with(Trainer& trainer, const std::function<std::vector<double>(const std::string& path)>& gradient) {
  const int id = 0;
  MicroBatch batch;
  batch.add(std::span{&id, 1}, std::span{&id, 1}, 0);
  trainer.accumulate(std::span{&batch, 1});
  for (const ParameterRecord& r : trainer.weights().records())
    trainer.weights().assign(r.path, std::span<const double>{gradient(r.path)}, Which{Which::Of::gradient});
  const Verdict v = trainer.verdict();
  trainer.commit(v);
  return v;
}

}  // namespace

TEST_CASE("1-bit Adam on 2 and 4 thread ranks equals the golden runs") {
  constexpr Extent steps = 12;
  for (const Extent ranks : {2, 4})
    for (const bool twice : {true, false}) {
      CAPTURE(ranks);
      CAPTURE(twice);
      const std::string of_run = concat("onebit_adam.ranks", ranks, ".padding_none."), of_ranks = concat("ranks", ranks, ".gradient.");
      Tensors values, first, second;
      launch_threads(ranks, [&](Session& session) {
        const Mesh mesh{session, {.data = ranks}};
        Weights weights{mesh, golden_model(), Recipe{twice ? AnyPrecision{Fp64{}} : AnyPrecision{Fp32{}}}};
        Trainer trainer{weights, AnyOptimizer{golden_rule()}, test::NoLoss{}, {}};
        for (const auto& [name, shape] : golden_parameters)
          weights.assign("raw." + std::string{name}, std::span<const double>{numbers(file(), std::string{"initial."} + name)});
        for (Extent step = 0; step < steps; ++step) {
          step_with(trainer, [&](const std::string& path) {
            const auto all = numbers(file(), of_ranks + path.substr(4));
            const auto now = part_of(all, steps, step);
            std::vector<double> gradient(now.size() / ranks);
            for (Rank r = 0; r < ranks; ++r)
              for (Extent i = 0; i < gradient.size(); ++i)
                if (step < 4 || r == session.rank()) gradient[i] += now[r * gradient.size() + i] / double(ranks);
            return gradient;
          });
          for (const auto& [name, shape] : golden_parameters) {
            const auto now = weights.weight<double>("raw." + std::string{name});
            if (session.is_root()) values[name].insert(values[name].end(), now.begin(), now.end());
          }
        }
        for (const auto& [name, shape] : golden_parameters) {
          auto m = weights.collect<double>("raw." + std::string{name}, {Which::Of::state, 0});
          auto v = weights.collect<double>("raw." + std::string{name}, {Which::Of::state, 1});
          if (session.is_root()) first[name] = std::move(m), second[name] = std::move(v);
        }
      });
      const double bound = twice ? 1e-6 : 1e-4;  // scales travel as floats
      for (const auto& [name, shape] : golden_parameters) {
        CAPTURE(name);
        CHECK(relative(values[name], numbers(file(), of_run + name)) < bound);
        CHECK(relative(first[name], numbers(file(), of_run + "final_exp_avg." + name)) < bound);
        CHECK(relative(second[name], numbers(file(), of_run + "final_exp_avg_sq." + name)) < bound);
      }
    }
}

TEST_CASE("where ranks keep their terms the norm is the root of the mean of their squared norms, and clipping is by it on all of them") {
  constexpr Extent ranks = 4;
  const auto term = [](Rank r, Extent i) { return double(int(i * 7 + r * 5) % 11 - 4); };
  launch_threads(ranks, [&](Session& session) {
    const Mesh mesh{session, {.data = ranks}};
    Weights weights{mesh, golden_model(), Recipe{Fp64{}}};
    Trainer trainer{weights, OneBitAdam{.freeze_step = 1}, test::NoLoss{}, {.clip = 5}};
    step_with(trainer, [&](const std::string& path) { return std::vector<double>(weights.record(path).shape.size(), 1); });
    const Verdict v = step_with(trainer, [&](const std::string& path) {
      std::vector<double> mine(weights.record(path).shape.size());
      for (Extent i = 0; i < mine.size(); ++i) mine[i] = term(session.rank(), i);
      return mine;
    });
    double mean = 0, of_sum = 0;
    for (const auto& [name, shape] : golden_parameters) {
      const auto whole = weights.gradient<double>("raw." + std::string{name});
      for (Extent i = 0; i < shape.size(); ++i) {
        double sum = 0;
        for (Rank r = 0; r < ranks; ++r) sum += term(r, i), mean += std::pow(ranks * term(r, i), 2) / ranks;
        of_sum += sum * sum;
        CHECK(whole[i] == doctest::Approx(sum));  // the gradient that is asked for is the sum all the same
      }
    }
    CHECK(v.squared_norm == doctest::Approx(mean));
    CHECK(v.squared_norm > of_sum);
    CHECK(v.scale == doctest::Approx(5 / (std::sqrt(mean) + 1e-6)));
  });
}

TEST_CASE("what had no gradient in the warm-up stays where it is, and the rest moves") {
  launch_threads(2, [&](Session& session) {
    const Mesh mesh{session, {.data = 2}};
    Weights weights{mesh, golden_model(), Recipe{Bf16{}}};
    Trainer trainer{weights, OneBitAdam{.rate = 0.1, .decay = 0, .freeze_step = 2}, test::NoLoss{}, {}};
    for (Extent step = 0; step < 5; ++step)
      step_with(trainer, [&](const std::string& path) {
        std::vector<double> some(weights.record(path).shape.size());
        for (Extent i = step < 2; i < some.size(); ++i) some[i] = double(i % 3) - 0.5 + double(session.rank()) * (step >= 2);
        return some;
      });
    for (const auto& [name, shape] : golden_parameters) {
      const auto w = weights.weight<double>("raw." + std::string{name});
      CHECK(w[0] == 0);
      for (Extent i = 1; i < w.size(); ++i) CHECK(std::abs(w[i]) > 0.05);
    }
  });
}

TEST_CASE("without warm-up, and over ranks that all cut its state, 1-bit Adam is refused: dsx-E120, dsx-E121") {
  const auto refusal = [](Degrees degrees, AnySharding sharding, OneBitAdam rule) {
    Session session = Session::dry(0, degrees.ranks());
    const Mesh mesh{session, degrees};
    Weights weights{mesh, golden_model(), Recipe{sharding}};
    try {
      Trainer trainer{weights, rule, test::NoLoss{}, {}};
    } catch (const Error& e) {
      return std::string{e.what()};
    }
    return std::string{};
  };
  CHECK(refusal({}, Replicate{}, {}) == "dsx-E120: 1-bit Adam with a freeze step of 0 has no second moment to divide by; give it steps of warm-up");
  const OneBitAdam rule{.freeze_step = 5};
  for (const AnySharding& cut : {AnySharding{ZeRO<1>{}}, AnySharding{ZeRO<2>{}}, AnySharding{ZeRO<3>{}}}) {
    CHECK(refusal({.data = 4}, cut, rule) ==
          "dsx-E121: 1-bit Adam sums momenta of raw.matrix over ranks that hold them whole, but its state is cut over data, where all of its 4 data "
          "ranks are; leave the state whole, or take AdamW");
    CHECK(refusal({.tensor = 2}, cut, rule) == "");
  }
  CHECK(refusal({.data = 4}, Replicate{}, rule) == "");
  CHECK(refusal({.data = 4, .inner = 2}, MiCS{}, rule) == "");
  CHECK(refusal({.data = 4, .inner = 4}, MiCS{}, rule).starts_with("dsx-E121"));
}

TEST_CASE("1-bit Adam beside a quantizer of the same sum is refused, and leaves weights that another optimizer can train: dsx-E122") {
  struct Packed {
    using Slot = QuantizerSlot;
    const Codec* codec(QuantSite site, const ParameterInfo&) const { return site == QuantSite::reduction ? &block_int8<64> : nullptr; }
  };
  Session session = Session::dry(0, 4);
  const Mesh mesh{session, {.data = 4}};
  Weights weights{mesh, golden_model(), Recipe{Packed{}}};
  const Extent before = session.memory.tally(Category::state).now;
  CHECK_THROWS_WITH_AS((Trainer{weights, OneBitAdam{.freeze_step = 5}, test::NoLoss{}, {}}),
                       "dsx-E122: the quantizer packs gradients of raw.matrix as int8 by 64 for their sum over data, but the optimizer sums its "
                       "momentum over them in its own way, as 1-bit Adam does; keep one of the two",
                       Error);
  CHECK(session.memory.tally(Category::state).now == before);
  CHECK_NOTHROW((Trainer{weights, AdamW{}, test::NoLoss{}, {}}));
}

TEST_CASE("1-bit Adam beside sums that no layout changes is refused: dsx-E126") {
  Session session = Session::dry(0, 4);
  const Mesh mesh{session, {.data = 4}};
  Weights weights{mesh, golden_model(), Recipe{Reproducible{}}};
  CHECK_THROWS_WITH_AS((Trainer{weights, OneBitAdam{.freeze_step = 5}, test::NoLoss{}, {}}),
                       "dsx-E126: the optimizer sums its momentum of raw.matrix over data in its own way, as 1-bit Adam does, and the summation "
                       "policy asks for sums that no layout changes; drop one of the two",
                       Error);
}
