// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// How well 1-bit Adam learns: 200 steps of a small GPT-2 on a text that stays the same (the license's), byte by byte, beside AdamW and beside
/// signs whose lost part is forgotten. And what a step of quickstart's models moves.
// labels: traj wire
// timeout: 600
#include <dsx/dsx.hpp>
#include <dsx/io/atomic_file.hpp>
#include <dsx/kernels/threads.hpp>
#include <dsx/optim/one_bit_adam.hpp>
#include <dsx/train/schedule.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

constexpr Extent steps = 200, ranks = 4, context = 64, sequences = 4;  // sequences: of a rank and step
constexpr double rate = 1e-3, beta_2 = 0.98;

/// The license, as bytes that occur there.
std::vector<int> license(Extent& vocabulary) {
  const std::string text = read_file(DSX_SOURCE_DIR "/LICENSE");
  std::array<int, 256> number{};
  number.fill(-1);
  int next = 0;
  std::vector<int> ids;
  for (const char c : text) {
    int& n = number[std::uint8_t(c)];
    if (n < 0) n = next++;
    ids.push_back(n);
  }
  vocabulary = Extent(next);
  return ids;
}

/// Signs whose lost part is forgotten.
struct ForgetfulSigns : OneBit {
  Session* session;
  ForgetfulSigns(const Mesh& mesh, std::vector<Range> tensors, Extent size)
      : OneBit{mesh, Axes::data, std::move(tensors), size, Element::f32}, session{&mesh.session()} {}
  void reduce(const View& terms) override {
    OneBit::reduce(terms);
    for (const Owed& owed : this->owed()) session->launch(kernels::zero, owed.view);
  }
};
struct Forgetful : OneBitAdam {
  std::unique_ptr<Reduction> reduction(const Bundle& b, const Mesh& mesh) const {
    std::vector<Range> tensors;
    for (const Segment& s : b.segments) tensors.push_back(s.range());
    return std::make_unique<ForgetfulSigns>(mesh, std::move(tensors), b.size);
  }
};

/// The mean training loss of the last steps.
template <class Optimizer>
double learned(Optimizer optimizer) {
  Extent vocabulary = 0;
  const std::vector<int> text = license(vocabulary);
  const CosineRate schedule{rate, 0.1 * rate, 20, steps};
  double last = 0;
  launch_threads(ranks, [&](Session& session) {
    kernels::use_threads(1);
    const Mesh mesh{session, {.data = ranks}};
    Weights weights{mesh, make_gpt2({.vocabulary = vocabulary, .positions = context, .width = 64, .heads = 4, .layers = 2}), Recipe{}};
    Trainer trainer{weights, optimizer, TokenLoss{}, {.rows = sequences * context, .clip = 2}};
    for (Extent step = 0; step < steps; ++step) {
      MicroBatch batch;
      for (Extent s = 0; s < sequences; ++s) {
        const Extent row = session.rank() * sequences + s;
        const Extent at = Extent(uniform({.seed = 9, .step = std::uint32_t(step)}, row, 0) * float(text.size() - context - 1));
        batch.add(std::span{text}.subspan(at, context), std::span{text}.subspan(at + 1, context), row * context);
      }
      trainer.optimizer().rate = schedule.at(step);
      const Verdict v = trainer.step(std::span{&batch, 1});
      if (session.is_root() && step + 20 >= steps) last += v.loss / 20;
    }
  });
  return last;
}

}  // namespace

TEST_CASE("200 steps of 1-bit Adam end within a hundredth of AdamW's loss, and three times as far without what is owed") {
  constexpr Extent freeze_step = 60;
  const OneBitAdam rule{.beta_2 = beta_2, .freeze_step = freeze_step};
  const double exact = learned(AdamW{.beta_2 = beta_2}), signs = learned(rule), forgetful = learned(Forgetful{rule});
  const auto more = [&](double loss) { return 100 * (loss / exact - 1); };
  MESSAGE("AdamW " << exact << ", 1-bit Adam " << more(signs) << " % more, without what is owed " << more(forgetful) << " % more");
  CHECK(exact < 3);
  CHECK(signs <= 1.01 * exact);
  CHECK(forgetful - exact >= 3 * std::max(signs - exact, 0.002 * exact));
}

TEST_CASE("a step of 1-bit Adam on quickstart's models moves at most a 31st of what AdamW's does") {
  struct Model {
    Gpt2Shape shape;
    Extent context;
  };
  for (const auto& [shape, length] : {Model{{.vocabulary = 512, .positions = 64, .width = 192, .heads = 6, .layers = 4}, 64},
                                      Model{{.vocabulary = 4096, .positions = 128, .width = 256, .heads = 8, .layers = 5}, 128}})
    for (const Extent data : {2, 4}) {
      const auto moved = [&, &shape = shape, length = length](auto optimizer) {
        Session session = Session::dry(0, data);
        const Mesh mesh{session, {.data = data}};
        Weights weights{mesh, make_gpt2(shape), Recipe{}};
        const Trainer trainer{weights, optimizer, TokenLoss{}, {.rows = 4 * length}};
        Extent bytes = 0;  // of the formula
        const auto up = [](Extent n, Extent by) { return (n + by - 1) / by; };
        for (const ParameterRecord& r : weights.records()) bytes += 2 * (data - 1) * (4 + up(up(r.shape.size(), data), 8));
        return std::pair{session.traffic.wire_bytes(), double(bytes)};
      };
      const double verdict = 2 * 2 * 8 * 2 * double(data - 1) / double(data);  // counts, norm and loss: sums of two numbers each
      const double exact = moved(AdamW{}).first;
      const auto [signs, formula] = moved(OneBitAdam{.freeze_step = 1});
      MESSAGE("width " << shape.width << " on " << data << " ranks: AdamW moves " << exact << " bytes a step, 1-bit Adam " << signs << ": 1/"
                       << exact / signs);
      CHECK(signs == formula + verdict);
      CHECK(signs <= exact / 31);
    }
}
