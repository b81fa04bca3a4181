// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A quantizer of one's own: gradients of matrices travel in 8 bits, those of all else, and everything that rests, as they are.
// run:
// expect: a step moves \d+ bytes whole, \d+ bytes packed
// expect: the same loss within a percent
// expect: it keeps the laws
#include <laws/quantizer_laws.hpp>

#include <dsx/quant/quantize.hpp>

struct Matrices {
  using Slot = dsx::QuantizerSlot;
  const dsx::Codec* codec(dsx::QuantSite site, const dsx::ParameterInfo& info) const {  // of one class of parameters
    return site == dsx::QuantSite::reduction && info.role == dsx::Role::matrix ? &dsx::block_int8<64> : nullptr;
  }
  bool feedback(const dsx::ParameterInfo&) const { return true; }  // what packing lost is added to the next gradient
};
static_assert(dsx::Quantizer<Matrices>);

struct Outcome {
  double loss = 0, moved = 0;  // bytes through a rank in one step
};

Outcome train(auto recipe) {
  Outcome outcome;
  dsx::launch_threads(2, [&](dsx::Session& session) {
    const dsx::Mesh mesh{session, {.data = 2}};
    dsx::Weights weights{mesh, dsx::make_gpt2({.vocabulary = 64, .positions = 16, .width = 64, .heads = 4, .layers = 2}), recipe};
    dsx::Trainer trainer{weights, dsx::AdamW{.rate = 1e-3}, dsx::TokenLoss{}, {.rows = 4 * 16, .clip = 1}};
    for (int step = 0; step < 20; ++step) {
      dsx::MicroBatch batch;
      for (int s = int(session.rank()) * 4; s < int(session.rank()) * 4 + 4; ++s) {
        std::vector<int> ids(16), targets(16);
        for (int t = 0; t < 16; ++t) ids[t] = (9 * s + step + t) % 64, targets[t] = (ids[t] + 1) % 64;
        batch.add(ids, targets, dsx::RowId(s) * 16);
      }
      session.traffic.clear();
      const double loss = trainer.step({&batch, 1}).loss;
      if (session.is_root()) outcome = {loss, session.traffic.wire_bytes()};
    }
  });
  return outcome;
}

int main() {
  const Outcome whole = train(dsx::Recipe{dsx::ZeRO<2>{}}), mine = train(dsx::Recipe{dsx::ZeRO<2>{}, Matrices{}});
  std::printf("a step moves %.0f bytes whole, %.0f bytes packed\n", whole.moved, mine.moved);
  const bool near = std::abs(mine.loss / whole.loss - 1) < 0.01, fewer = mine.moved < 0.8 * whole.moved;
  std::puts(near && fewer ? "the same loss within a percent" : "another loss");
  const std::string broken = laws::broken([] { laws::quantizer(Matrices{}); });
  std::puts(broken.empty() ? "it keeps the laws of quantizers" : broken.c_str());
}
