// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A layer of one's own: parameters, parts and one forward pass, for any number of ranks.
// run:
// expect: blocks\.0\.1\.1\.gate\.weight +32 x 128
// expect: on 1 rank +loss 1\.\d+ after 40 steps
// expect: on 2 ranks the same to \de-0[6-9]
#include <dsx/dsx.hpp>

/// A feed-forward layer with a gate: down(gelu(gate x) + up x). The tensor axis cuts its hidden channels.
struct GatedMlp {
  dsx::ColumnLinear gate, up;
  dsx::RowLinear down;
  GatedMlp(dsx::Extent channels, dsx::Extent hidden) : gate{channels, hidden}, up{channels, hidden}, down{hidden, channels} {}
  void parts(auto& visit) const { visit("gate", gate), visit("up", up), visit("down", down); }
  dsx::Value<dsx::Common> operator()(dsx::Value<dsx::Common> x_RC) const {
    const auto whole_RC = fan_out(x_RC);                       // every rank sees all channels
    return fan_in(down(gelu(gate(whole_RC)) + up(whole_RC)));  // each has a term of the sum; fan_in adds them up
  }
};

auto make_model() {
  const dsx::Chain block{dsx::Residual{dsx::LayerNorm{32}, dsx::CausalAttention{32, 4}}, dsx::Residual{dsx::LayerNorm{32}, GatedMlp{32, 128}}};
  return dsx::Sequential{dsx::Embedding{64, 16, 32}, dsx::Named{"blocks", dsx::Repeat{2, block}}, dsx::Chain{dsx::LayerNorm{32}, dsx::Head{64, 32}}};
}

double train(dsx::Session& session, dsx::Degrees degrees) {
  const dsx::Mesh mesh{session, degrees};
  dsx::Weights weights{mesh, make_model(), dsx::Recipe{}};
  dsx::Trainer trainer{weights, dsx::AdamW{.rate = 3e-3}, dsx::TokenLoss{}, {.rows = 8 * 16}};
  double loss = 0;
  for (int step = 0; step < 40; ++step) {
    std::vector<dsx::MicroBatch> batches(1);
    for (int s = 0; s < 8; ++s) {
      std::vector<int> ids(16), targets(16);
      for (int t = 0; t < 16; ++t) ids[t] = (11 * s + 5 * t + step) % 64, targets[t] = (ids[t] + 5) % 64;
      batches[0].add(ids, targets, dsx::RowId(s) * 16);
    }
    loss = trainer.step(batches).loss;
  }
  if (session.is_root() && session.ranks() == 1)
    for (const auto& r : weights.records()) std::printf("%-32s %zu x %zu\n", r.path.c_str(), r.shape.rows, r.shape.columns);
  return loss;
}

int main() {
  double one = 0, two = 0;
  dsx::launch_threads(1, [&](dsx::Session& session) { one = train(session, {}); });
  dsx::launch_threads(2, [&](dsx::Session& session) {
    if (const double loss = train(session, {.tensor = 2}); session.is_root()) two = loss;
  });
  std::printf("on 1 rank  loss %.4f after 40 steps\non 2 ranks the same to %.0e\n", one, std::abs(one - two) + 1e-9);
}
