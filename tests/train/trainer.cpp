// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A step on one rank: what is averaged, clipped, committed and refused; and evaluations beside it.
#include "support/by_hand.hpp"
#include "support/workbench.hpp"

#include <dsx/dsx.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::ByHand;

namespace {

constexpr Gpt2Shape shape{.vocabulary = 13, .positions = 8, .width = 8, .heads = 2, .layers = 2};
using Chosen = Recipe<AnyPrecision, AnyRecompute>;

/// A world of one rank with a small GPT-2 in it, in double.
struct World {
  Session session{self_transport()};
  Mesh mesh{session, {}};
  Weights<Gpt2, Chosen> weights;
  explicit World(double dropout = 0, AnyRecompute recompute = {}) : weights{mesh, make(dropout), Chosen{AnyPrecision{Fp64{}}, recompute}} {}

  static Gpt2 make(double dropout) {
    Gpt2Shape s = shape;
    s.dropout = s.attention_dropout = dropout;
    return make_gpt2(s);
  }
  auto trainer(TrainerOptions options) { return Trainer<Weights<Gpt2, Chosen>, Sgd, TokenLoss>{weights, Sgd{.rate = 0.5}, TokenLoss{5}, options}; }
  std::vector<std::vector<double>> all(Which which = {}) {
    std::vector<std::vector<double>> values;
    for (const ParameterRecord& r : weights.records()) values.push_back(weights.collect<double>(r.path, which));
    return values;
  }
  std::vector<std::vector<double>> gradients() { return all({Which::Of::gradient}); }
};

/// Text number `text`, of `rows` tokens, whose last target isn't counted.
void add(MicroBatch& batch, Extent text, Extent rows) {
  std::vector<int> ids, targets;
  for (Extent i = 0; i < rows; ++i) ids.push_back(int((text * 7 + i * 5 + i * i) % 13));
  for (Extent i = 0; i < rows; ++i) targets.push_back(i + 1 < rows ? ids[i + 1] : -1);
  batch.add(ids, targets, text * 8);
}
MicroBatch texts(std::initializer_list<std::pair<Extent, Extent>> list) {
  MicroBatch batch;
  for (const auto& [text, rows] : list) add(batch, text, rows);
  return batch;
}

double distance(const std::vector<std::vector<double>>& a, const std::vector<std::vector<double>>& b) {
  double most = 0;
  for (Extent i = 0; i < a.size(); ++i)
    for (Extent j = 0; j < a[i].size(); ++j) most = std::max(most, std::abs(a[i][j] - b[i][j]));
  return most;
}
int refusal(const auto& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.number();
  }
  return 0;
}

}  // namespace

TEST_CASE("micro-batches add up to the one batch that holds them all") {
  World one, two;
  auto whole = one.trainer({.rows = 17}), parts = two.trainer({.micro_batches = 2, .rows = 12});
  whole.accumulate(std::vector{texts({{0, 8}, {1, 4}, {2, 5}})});
  parts.accumulate(std::vector{texts({{0, 8}, {1, 4}}), texts({{2, 5}})});
  CHECK(whole.targets() == 14);
  CHECK(parts.targets() == 14);
  CHECK(whole.verdict().loss == doctest::Approx(parts.verdict().loss).epsilon(1e-13));
  CHECK(distance(one.gradients(), two.gradients()) < 1e-14);
  CHECK(whole.verdict().squared_norm > 1e-3);
}

TEST_CASE("an empty micro-batch and sequences without rows change nothing") {
  World one, two;
  auto plain = one.trainer({.rows = 12}), with_empty = two.trainer({.micro_batches = 3, .rows = 12});
  plain.accumulate(std::vector{texts({{0, 8}, {1, 4}})});
  with_empty.accumulate(std::vector{texts({}), texts({{9, 0}, {0, 8}, {9, 0}, {9, 0}, {1, 4}, {9, 0}}), texts({{9, 0}})});
  CHECK(plain.verdict().loss == with_empty.verdict().loss);
  CHECK(distance(one.gradients(), two.gradients()) == 0);
}

TEST_CASE("fewer rows than planned for give the same bits") {
  World one, two;
  auto tight = one.trainer({.rows = 12}), loose = two.trainer({.rows = 40});
  for (int step = 0; step < 3; ++step) {
    const std::vector batch{texts({{Extent(step), 8}, {1, 4}})};
    CHECK(tight.step(batch).loss == loose.step(batch).loss);
  }
  CHECK(distance(one.all(), two.all()) == 0);
}

TEST_CASE("a step without any counted target, of too many rows or of another number of micro-batches is refused: dsx-E304") {
  World world;
  auto trainer = world.trainer({.micro_batches = 2, .rows = 8});
  const auto before = world.all();
  CHECK(refusal([&] { trainer.step(std::vector{texts({}), texts({})}); }) == 304);
  CHECK(refusal([&] { trainer.step(std::vector{texts({{0, 1}}), texts({{1, 1}})}); }) == 304);
  CHECK(refusal([&] { trainer.step(std::vector{texts({{0, 8}})}); }) == 304);
  CHECK(refusal([&] { trainer.step(std::vector{texts({{0, 8}}), texts({{0, 8}, {1, 1}})}); }) == 304);
  MicroBatch batch;
  const std::vector<int> two{1, 2}, three{1, 2, 3};
  CHECK_THROWS_WITH_AS(batch.add(two, three, 0), "dsx-E304: a sequence of 2 tokens with 3 targets", Error);
  CHECK(distance(world.all(), before) == 0);
  CHECK(trainer.steps() == 0);
  // The trainer goes on as if nothing had been asked.
  World other;
  auto fresh = other.trainer({.micro_batches = 2, .rows = 8});
  const std::vector good{texts({{0, 8}}), texts({{1, 5}})};
  CHECK(trainer.step(good).loss == fresh.step(good).loss);
  CHECK(distance(world.all(), other.all()) == 0);
}

TEST_CASE("clipping scales the whole gradient by the limit over its norm, and only where it is longer") {
  const std::vector batch{texts({{0, 8}, {1, 4}})};
  for (const double limit : {0.0, 0.05, 1e6}) {
    World world;
    auto trainer = world.trainer({.rows = 12, .clip = limit});
    const auto before = world.all();
    const Verdict verdict = trainer.step(batch);
    double squares = 0;
    for (const auto& g : world.gradients())
      for (const double e : g) squares += e * e;
    CHECK(verdict.squared_norm == doctest::Approx(squares).epsilon(1e-13));
    CHECK(std::sqrt(squares) > 0.05);
    const double scale = limit == 0.05 ? limit / (std::sqrt(squares) + 1e-6) : 1;
    CHECK(verdict.scale == doctest::Approx(scale).epsilon(1e-13));
    auto expected = before;
    const auto gradients = world.gradients();
    for (Extent i = 0; i < expected.size(); ++i)
      for (Extent j = 0; j < expected[i].size(); ++j) expected[i][j] -= 0.5 * scale * gradients[i][j];
    CHECK(distance(world.all(), expected) < 1e-15);
    CHECK(trainer.steps() == 1);
  }
}

TEST_CASE("a loss that isn't finite stops the step, names the first bad tensor and leaves the weights: dsx-E409") {
  World world;
  auto trainer = world.trainer({.rows = 12});
  const std::vector batch{texts({{0, 8}})};
  auto gain = world.weights.weight<double>("blocks.1.mlp_norm.gain");
  gain[3] = std::numeric_limits<double>::quiet_NaN();
  world.weights.assign("blocks.1.mlp_norm.gain", std::span<const double>{gain});
  const auto before = world.all();
  try {
    trainer.step(batch);
    FAIL("the step was taken");
  } catch (const Error& error) {
    CHECK(error.number() == 409);
    const std::string text = error.what();
    CHECK(text.find("step 1: the loss is") != std::string::npos);
    CHECK(text.find("token_table, on rank 0") != std::string::npos);  // NaN reached every gradient; this is the first tensor
  }
  CHECK(trainer.steps() == 0);
  auto healed = before;
  for (auto& v : healed)
    for (double& e : v) e = std::isnan(e) ? 1 : e;
  gain[3] = 1;
  world.weights.assign("blocks.1.mlp_norm.gain", std::span<const double>{gain});
  CHECK(distance(world.all(), healed) == 0);
  CHECK(std::isfinite(trainer.step(batch).loss));
}

TEST_CASE("weights have one trainer at a time: dsx-E410") {
  World world;
  {
    auto trainer = world.trainer({.rows = 8});
    CHECK(refusal([&] { world.trainer({.rows = 8}); }) == 410);
  }
  CHECK(refusal([&] { world.trainer({.rows = 8}); }) == 0);
}

TEST_CASE("dropout follows the seed and the step, and recomputation draws the same") {
  const auto losses = [](std::uint64_t seed, AnyRecompute recompute, double dropout = 0.3) {
    World world{dropout, recompute};
    auto trainer = world.trainer({.rows = 12, .seed = seed});
    std::vector<double> all;
    for (int step = 0; step < 3; ++step) all.push_back(trainer.step(std::vector{texts({{0, 8}, {1, 4}})}).loss);
    return all;
  };
  CHECK(losses(1, KeepActivations{}) == losses(1, KeepActivations{}));
  CHECK(losses(1, KeepActivations{}) == losses(1, RecomputeUnits{}));
  CHECK(losses(1, KeepActivations{}) != losses(2, KeepActivations{}));
  World world{0.3};
  auto trainer = world.trainer({.rows = 12});
  const std::vector batch{texts({{0, 8}})};
  trainer.accumulate(batch);
  const double first = trainer.verdict().loss;
  trainer.accumulate(batch);
  CHECK(trainer.verdict().loss == first);
  trainer.resume_at(1);
  trainer.accumulate(batch);
  CHECK(trainer.verdict().loss != first);
}

TEST_CASE("an evaluation is the mean of the counted targets' log probabilities, computed by hand from the logits") {
  World world{0.3};
  const std::vector batches{texts({{0, 8}, {1, 4}}), texts({{2, 5}}), texts({}), texts({{3, 1}})};
  double sum = 0, counted = 0;
  {
    World again{0.3};
    ByHand by_hand{again.weights, false};
    for (const MicroBatch& batch : batches) {
      const Batch view = batch.view(12);
      by_hand.forward(view, [&](const auto& layer, auto flow, Unit) {
        auto out = layer(flow);
        if constexpr (std::same_as<decltype(out), Logits>) {
          const std::vector<double> logits = by_hand.read(all_logits(out).node);
          for (Extent r = 0; r < view.live(); ++r) {
            if (view.targets[r] < 0) continue;
            double sum_of_exponentials = 0;
            for (Extent v = 0; v < 13; ++v) sum_of_exponentials += std::exp(logits[r * 13 + v]);
            sum += std::log(sum_of_exponentials) - logits[r * 13 + Extent(view.targets[r])], ++counted;
          }
        }
        return out;
      });
    }
  }
  CHECK(counted == 7 + 3 + 4);
  Evaluator evaluator{world.weights, TokenLoss{5}, 12};
  CHECK(evaluator.loss(batches) == doctest::Approx(sum / counted).epsilon(1e-13));
  CHECK(evaluator.loss(batches) == evaluator.loss(batches));
  World without;  // the same weights
  CHECK(evaluator.loss(batches) == Evaluator{without.weights, TokenLoss{5}, 12}.loss(batches));
  CHECK(std::isnan(evaluator.loss(std::vector{texts({})})));
}

TEST_CASE("evaluations between steps change no step, and see the weights of the moment") {
  World one{0.2}, two{0.2};
  auto trainer = one.trainer({.rows = 12}), watched = two.trainer({.rows = 12});
  Evaluator evaluator{two.weights, TokenLoss{5}, 30};
  const std::vector held_out{texts({{4, 8}, {5, 8}, {6, 8}})};
  std::vector<double> seen{evaluator.loss(held_out)};
  for (Extent step = 0; step < 4; ++step) {
    const std::vector batch{texts({{step, 8}, {1, 4}})};
    CHECK(trainer.step(batch).loss == watched.step(batch).loss);
    seen.push_back(evaluator.loss(held_out));
    CHECK(seen.back() != seen[step]);
  }
  CHECK(distance(one.all(), two.all()) == 0);
}

TEST_CASE("a dry trainer counts the bytes that a real one takes, by category") {
  World world{0.2};
  auto trainer = world.trainer({.micro_batches = 2, .rows = 12, .clip = 1});
  trainer.step(std::vector{texts({{0, 8}, {1, 4}}), texts({{2, 5}})});
  Session session = Session::dry(0, 1);
  const Mesh mesh{session, {}};
  Weights plan{mesh, World::make(0.2), Chosen{AnyPrecision{Fp64{}}, AnyRecompute{}}};
  Trainer dry{plan, Sgd{.rate = 0.5}, TokenLoss{5}, {.micro_batches = 2, .rows = 12, .clip = 1}};
  for (Extent c = 0; c < categories; ++c) {
    INFO(category_names[c]);
    CHECK(session.memory.tally(Category(c)).peak == world.session.memory.tally(Category(c)).peak);
  }
  CHECK(dry.flops() > 0);
}
