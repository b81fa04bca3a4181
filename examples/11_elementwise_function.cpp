// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// An elementwise function of one's own: a functor and its derivative are all it takes.
// run:
// expect: loss 4\.\d+ -> [0-2]\.
#include <dsx/dsx.hpp>

// [function]
struct SquaredRelu {  // So et al. 2021
  static auto value(auto x) { return x > 0 ? x * x : 0 * x; }
  static auto derivative(auto x) { return x > 0 ? 2 * x : 0 * x; }
};

struct Mlp {
  dsx::ColumnLinear up;
  dsx::RowLinear down;
  explicit Mlp(dsx::Extent channels) : up{channels, 4 * channels}, down{4 * channels, channels} {}
  void parts(auto& visit) const { visit("up", up), visit("down", down); }
  dsx::Value<dsx::Common> operator()(dsx::Value<dsx::Common> x_RC) const {
    return fan_in(down(dsx::map<SquaredRelu>(up(fan_out(x_RC)))));  // in front of fan_in: each rank's channels; behind it: dsx-E207
  }
};
// [/function]

int main() {
  dsx::Session session{dsx::self_transport()};
  const dsx::Mesh mesh{session, {}};
  const dsx::Chain block{dsx::Residual{dsx::LayerNorm{32}, dsx::CausalAttention{32, 4}}, dsx::Residual{dsx::LayerNorm{32}, Mlp{32}}};
  const dsx::Sequential model{dsx::Embedding{64, 16, 32}, dsx::Repeat{2, block}, dsx::Chain{dsx::LayerNorm{32}, dsx::Head{64, 32}}};
  dsx::Weights weights{mesh, model, dsx::Recipe{}};
  dsx::Trainer trainer{weights, dsx::AdamW{.rate = 5e-3}, dsx::TokenLoss{}, {.rows = 8 * 16}};
  double first = 0, last = 0;
  for (int step = 0; step < 60; ++step) {
    dsx::MicroBatch batch;
    for (int s = 0; s < 8; ++s) {
      std::vector<int> ids(16), targets(16);
      for (int t = 0; t < 16; ++t) ids[t] = (9 * s + step + t) % 64, targets[t] = (ids[t] + 1) % 64;
      batch.add(ids, targets, dsx::RowId(s) * 16);
    }
    last = trainer.step({&batch, 1}).loss;
    if (step == 0) first = last;
  }
  std::printf("loss %.3f -> %.3f\n", first, last);
}
