// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E201
#include <dsx/dsx.hpp>

using namespace dsx;

struct UsersMlp {
  ColumnLinear up;
  RowLinear down;
  explicit UsersMlp(Extent channels) : up{channels, 4 * channels}, down{4 * channels, channels} {}
  void parts(auto& visit) const { visit("up", up), visit("down", down); }
  Value<Common> operator()(Value<Common> x) const {
#ifdef FIXED
    return fan_in(down(gelu(up(fan_out(x)))));
#else
    return down(gelu(up(fan_out(x))));
#endif
  }
};

auto users_model() {
  return Sequential{Embedding{256, 64, 8}, Repeat{2, Residual{LayerNorm{8}, UsersMlp{8}}}, Chain{LayerNorm{8}, Head{256, 8}}};
}

int main() {
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  Weights weights{mesh, users_model(), Recipe{ZeRO<2>{}}};
  Trainer trainer{weights, AdamW{}, TokenLoss{}, {.rows = 16}};
  const MicroBatch batch;
  trainer.step(std::span{&batch, 1});
}
