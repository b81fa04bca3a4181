// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold
/// GPT-2 against Hugging Face's, in float against its float and in double against its double: every value, gradient and step.
#include "support/by_hand.hpp"
#include "support/golden.hpp"

#include <dsx/optim/adamw.hpp>
#include <dsx/train/trainer.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::integers;
using test::numbers;
using test::part_of;
using test::relative;

namespace {

using Chosen = Recipe<AnyPrecision>;

/// Files, and the model filled with the file's weights.
struct Case {
  SafetensorsSet file{test::golden("gpt2_tiny")};
  SafetensorsFile expected{test::golden("gpt2_tiny/expected.safetensors")};
  GptConfig config = read_gpt2_config(test::golden("gpt2_tiny/config.json"));
  std::vector<WeightName> names = test::gpt2_names(file, config.n_layer);
  Session session{self_transport()};
  Mesh mesh{session, {}};
  Weights<Gpt2, Chosen> weights;

  explicit Case(AnyPrecision precision) : weights{mesh, make_gpt2(test::shape_of(config)), Chosen{precision}} {
    for (const WeightName& name : names) {
      std::vector<double> whole(file.entry(name.theirs).size());
      file.copy_elements(name.theirs, {0, whole.size()}, {whole.data(), {whole.size(), 1}, Element::f64});
      weights.assign(name.ours, std::span<const double>{whole});
    }
  }

  /// Three texts of 17 tokens, as three sequences of a micro-batch.
  static MicroBatch batch(const std::vector<int>& ids, const std::vector<int>& labels, Extent texts) {
    MicroBatch batch;
    const Extent length = ids.size() / texts;
    for (Extent t = 0; t < texts; ++t) batch.add(part_of(ids, texts, t), test::shifted(part_of(labels, texts, t)), t * length);
    return batch;
  }
  MicroBatch batch() const { return batch(integers(expected, "ids"), integers(expected, "labels"), 3); }

  std::vector<double> logits(const MicroBatch& batch) {
    test::ByHand by_hand{weights, false};
    std::vector<double> all;
    by_hand.forward(batch.view(batch.rows()), [&](const auto& layer, auto flow, Unit) {
      auto out = layer(flow);
      if constexpr (std::same_as<decltype(out), Logits>) all = by_hand.read(all_logits(out).node);
      return out;
    });
    return all;
  }
  double largest_gradient() const {
    double largest = 0;
    for (const WeightName& name : names)
      for (const double g : numbers(expected, "grad." + name.theirs)) largest = std::max(largest, std::abs(g));
    return largest;
  }
};

auto trainer_of(Case& c, TrainerOptions options) {
  return Trainer<Weights<Gpt2, Chosen>, AdamW, TokenLoss>{
      c.weights, AdamW{.rate = 1e-3, .beta_1 = 0.9, .beta_2 = 0.95, .epsilon = 1e-8, .decay = 0.1}, TokenLoss{64}, options};
}

/// The gradient of a key's bias is rounding noise, for softmax doesn't feel it, and Adam makes steps of noise.
bool has_key_bias(const std::string& name) { return name.ends_with("c_attn.bias"); }
std::vector<double> without_keys(std::vector<double> bias) {
  std::fill(bias.begin() + long(bias.size() / 3), bias.begin() + long(bias.size() / 3 * 2), 0);
  return bias;
}

}  // namespace

TEST_CASE("GPT-2's logits and every hidden state equal Hugging Face's") {
  for (const AnyPrecision& precision : {AnyPrecision{Fp32{}}, AnyPrecision{Fp64{}}}) {
    Case c{precision};
    test::ByHand by_hand{c.weights, false};
    const MicroBatch batch = c.batch();
    const auto compare = [&](auto value, const std::string& name) {
      INFO(name);
      CHECK(relative(by_hand.read(value.node), numbers(c.expected, name)) < 1e-5);
    };
    Extent compared = 0;
    by_hand.forward(batch.view(batch.rows()), [&](const auto& layer, auto flow, Unit unit) {
      using Layer = std::remove_cvref_t<decltype(layer)>;
      auto out = layer(flow);
      if constexpr (std::same_as<Layer, Embedding>) compare(out, "hidden.embedding"), ++compared;
      if constexpr (std::same_as<Layer, Gpt2Block>) {
        const std::string block = "hidden.block_" + std::to_string(unit - 1) + ".";
        const auto norm_1 = layer.attention_norm(flow), attention = layer.attention(norm_1), between = flow + attention;
        const auto norm_2 = layer.mlp_norm(between), mlp = layer.mlp(norm_2);
        compare(norm_1, block + "ln_1"), compare(attention, block + "attention"), compare(norm_2, block + "ln_2"), compare(mlp, block + "mlp");
        compare(out, block + "output");
        compared += 5;
      }
      if constexpr (std::same_as<decltype(out), Logits>) {
        compare(out.hidden_RC, "hidden.final_norm"), ++compared;
        const std::vector<double> logits = by_hand.read(all_logits(out).node);
        const bool twice = precision.elements().value == Element::f64;
        CHECK(relative(logits, numbers(c.expected, twice ? "float64.logits" : "logits")) < (twice ? 1e-12 : 1e-5));
      }
      return out;
    });
    CHECK(compared == 22);
  }
}

TEST_CASE("GPT-2's loss and all 52 gradients equal Hugging Face's") {
  for (const bool twice : {false, true}) {
    Case c{twice ? AnyPrecision{Fp64{}} : AnyPrecision{Fp32{}}};
    CHECK(c.names.size() == 52);
    auto trainer = trainer_of(c, {.rows = 51});
    const MicroBatch batch = c.batch();
    trainer.accumulate(std::span{&batch, 1});
    CHECK(trainer.targets() == 44);
    CHECK(relative(trainer.verdict().loss, numbers(c.expected, twice ? "float64.loss" : "loss")[0]) < (twice ? 1e-12 : 1e-6));
    const double floor = 1e-3 * c.largest_gradient();
    for (const WeightName& name : c.names) {
      INFO(name.theirs);
      CHECK(relative(c.weights.gradient<double>(name.ours), numbers(c.expected, "grad." + name.theirs), floor) < 2e-5);
    }
  }
}

TEST_CASE("GPT-2 on texts of 17, 11 and 6 tokens gives the logits of Hugging Face's padded batches") {
  for (const AnyPrecision& precision : {AnyPrecision{Fp32{}}, AnyPrecision{Fp64{}}})
    for (const std::string side : {"right", "left"}) {
      Case c{precision};
      const auto get = [&](const std::string& name) { return integers(c.expected, "padded." + side + "." + name); };
      const std::vector<int> ids = get("ids"), mask = get("mask"), positions = get("position_ids");
      const std::vector<double> padded = numbers(c.expected, "padded." + side + ".logits");
      MicroBatch batch;
      std::vector<double> wanted;
      for (Extent text = 0; text < 3; ++text) {
        std::vector<int> kept;
        int first_position = -1;
        for (Extent i = text * 17; i < (text + 1) * 17; ++i) {
          if (!mask[i]) continue;
          if (kept.empty()) first_position = positions[i];
          kept.push_back(ids[i]);
          const auto row = part_of(padded, 51, i);
          wanted.insert(wanted.end(), row.begin(), row.end());
        }
        batch.add(kept, test::shifted(kept), text * 17, first_position);
      }
      CHECK(batch.rows() == 34);
      CHECK(relative(c.logits(batch), wanted) < 1e-5);
    }
}

TEST_CASE("uneven micro-batches give the mean over tokens, not the mean of means") {
  for (const AnyPrecision& precision : {AnyPrecision{Fp32{}}, AnyPrecision{Fp64{}}}) {
    Case c{precision};
    auto trainer = trainer_of(c, {.micro_batches = 2, .rows = 51});
    const std::vector<int> ids = integers(c.expected, "uneven.ids"), labels = integers(c.expected, "uneven.labels");
    std::vector<MicroBatch> batches;
    for (Extent m = 0; m < 2; ++m) {
      const auto i = part_of(ids, 2, m), l = part_of(labels, 2, m);
      batches.push_back(Case::batch({i.begin(), i.end()}, {l.begin(), l.end()}, 3));
    }
    trainer.accumulate(batches);
    const Verdict verdict = trainer.verdict();
    CHECK(trainer.targets() == 57);
    CHECK(relative(verdict.loss, numbers(c.expected, "uneven.token_mean.loss")[0]) < 1e-6);
    CHECK(relative(verdict.loss, numbers(c.expected, "uneven.mean_of_means.loss")[0]) > 1e-4);
    CHECK(relative(std::sqrt(verdict.squared_norm), numbers(c.expected, "uneven.token_mean.grad_norm")[0]) < 2e-5);
    CHECK(relative(c.weights.gradient<double>("embedding.positions"), numbers(c.expected, "uneven.token_mean.grad.transformer.wpe.weight")) < 2e-5);
  }
}

TEST_CASE("20 clipped AdamW steps of GPT-2 equal PyTorch's") {
  const SafetensorsFile training{test::golden("gpt2_tiny/training.safetensors")};
  const std::vector<int> tokens = integers(training, "batches");
  const std::vector<double> rates = numbers(training, "learning_rate");
  for (const bool twice : {false, true}) {
    const std::string prefix = twice ? "float64." : "";
    Case c{twice ? AnyPrecision{Fp64{}} : AnyPrecision{Fp32{}}};
    auto trainer = trainer_of(c, {.micro_batches = 2, .rows = 68, .clip = 1});
    std::vector<double> losses, norms;
    for (Extent step = 0; step < 20; ++step) {
      std::vector<MicroBatch> batches;
      for (Extent m = 0; m < 2; ++m) {
        const auto ids = part_of(tokens, 40, 2 * step + m);
        batches.push_back(Case::batch({ids.begin(), ids.end()}, {ids.begin(), ids.end()}, 4));
      }
      trainer.optimizer().rate = rates[step];
      const Verdict verdict = trainer.step(batches);
      CHECK(verdict.scale < 1);
      losses.push_back(verdict.loss), norms.push_back(std::sqrt(verdict.squared_norm));
    }
    CHECK(relative(losses, numbers(training, prefix + "loss")) < (twice ? 1e-12 : 1e-6));
    CHECK(relative(norms, numbers(training, prefix + "grad_norm")) < (twice ? 1e-12 : 2e-5));
    // In double the comparison is with the run in double, and in float with both.
    for (const WeightName& name : c.names) {
      INFO(name.theirs);
      const bool keys = has_key_bias(name.theirs);
      const auto compared = [&](const std::vector<double>& values) { return keys ? without_keys(values) : values; };
      const std::vector<double> mine = c.weights.weight<double>(name.ours), exact = numbers(training, "float64.final." + name.theirs);
      const std::vector<double> theirs_in_float = numbers(training, "final." + name.theirs);
      CHECK(relative(compared(mine), compared(exact)) < (twice ? 1e-12 : 1e-5));
      if (!twice) CHECK(relative(compared(mine), compared(theirs_in_float)) < 1e-5);
      if (keys) {
        double farthest = 0;
        for (Extent i = mine.size() / 3; i < mine.size() / 3 * 2; ++i)
          farthest = std::max(farthest, std::abs(mine[i] - (twice ? exact : theirs_in_float)[i]));
        CHECK(farthest < (twice ? 1e-10 : 1e-3));
      }
      for (const auto& [state, theirs] : {std::pair{0, "exp_avg."}, {1, "exp_avg_sq."}}) {
        const std::vector<double> moment = c.weights.collect<double>(name.ours, {Which::Of::state, Extent(state)});
        INFO(theirs);
        CHECK(relative(compared(moment), compared(numbers(training, "final." + (theirs + name.theirs)))) < 2e-5);
      }
    }
  }
}
