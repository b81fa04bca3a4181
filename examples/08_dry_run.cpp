// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A dry run: what one of 64 ranks will need to train GPT-2 XL, found on a laptop without allocating it.
// run:
// expect: rank 0 of 64, a model of 1\.6 G parameters
// expect: state +\d.* MiB
// expect: reduce_scatter over data of 16, f32
// expect: traffic through this rank
#include <dsx/dsx.hpp>
#include <dsx/train/report.hpp>

int main() {
  dsx::Session session = dsx::Session::dry(0, 64);  // neither memory nor peers; the program can't tell
  const dsx::Mesh mesh{session, {.data = 16, .tensor = 4}};
  const dsx::Gpt2Shape xl{.vocabulary = 50257, .positions = 1024, .width = 1600, .heads = 25, .layers = 48};
  dsx::Weights weights{mesh, dsx::make_gpt2(xl), dsx::Recipe{dsx::ZeRO<2>{}, dsx::Bf16{}, dsx::RecomputeUnits{}}};
  dsx::Trainer trainer{weights, dsx::AdamW{}, dsx::TokenLoss{}, {.micro_batches = 2, .rows = 4 * 1024}};
  std::printf("%s", dsx::describe(trainer, session.traffic).c_str());
}
