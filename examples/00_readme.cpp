// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The program of the README: a language model on four ranks that are threads.
// run:
// expect: step 10  loss [0-9.]+
#include <dsx/dsx.hpp>

struct Mlp {  // a layer: parts, and one forward pass. Backward, ranks and memory are not its business
  dsx::ColumnLinear up;
  dsx::RowLinear down;
  explicit Mlp(dsx::Extent channels) : up{channels, 4 * channels}, down{4 * channels, channels} {}
  void parts(auto& visit) const { visit("up", up), visit("down", down); }
  dsx::Value<dsx::Common> operator()(dsx::Value<dsx::Common> x_RC) const { return fan_in(down(gelu(up(fan_out(x_RC))))); }
};

auto make_model(dsx::Extent vocabulary, dsx::Extent length, dsx::Extent width) {
  const dsx::Chain block{dsx::Residual{dsx::LayerNorm{width}, dsx::CausalAttention{width, 4}}, dsx::Residual{dsx::LayerNorm{width}, Mlp{width}}};
  return dsx::Sequential{dsx::Embedding{vocabulary, length, width}, dsx::Repeat{2, block},
                         dsx::Chain{dsx::LayerNorm{width}, dsx::Head{vocabulary, width}}};
}

constexpr dsx::Recipe recipe{dsx::ZeRO<2>{}, dsx::OneForwardOneBackward{}};  // policies, in any order; what isn't named is the identity

int main(int argc, char** argv) {
  return dsx::launch(argc, argv, {.ranks = 4}, [](dsx::Session& session) {  // the same program runs under mpirun
    const dsx::Mesh mesh{session, {.data = 2, .pipe = 2}};
    dsx::Weights weights{mesh, make_model(64, 16, 32), recipe};
    dsx::Trainer trainer{weights, dsx::AdamW{.rate = 1e-2}, dsx::TokenLoss{}, {.micro_batches = 2, .rows = 4 * 16, .clip = 1}};
    for (int step = 1; step <= 10; ++step) {
      std::vector<dsx::MicroBatch> batches(2);
      for (dsx::Extent s = 0; s < 8; ++s) {  // this data rank's sequences: each token is the one before, plus 3
        const dsx::Extent sequence = 8 * mesh.coordinate(dsx::Axes::data) + s;
        std::vector<int> ids(16), targets(16);
        for (int t = 0; t < 16; ++t) ids[t] = int(sequence * 7 + 3 * t + step) % 64, targets[t] = (ids[t] + 3) % 64;
        batches[s / 4].add(ids, targets, sequence * 16);
      }
      const dsx::Verdict verdict = trainer.step(batches);
      if (session.is_root()) std::printf("step %2d  loss %.4f\n", step, verdict.loss);
    }
  });
}
