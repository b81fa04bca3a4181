// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The first training loop: a small GPT-2 learns to count. One rank, no policy anywhere.
// run:
// expect: step  1  loss 4\.
// expect: step 60  loss [01]\.
#include <dsx/dsx.hpp>

int main() {
  dsx::Session session{dsx::self_transport()};
  const dsx::Mesh mesh{session, {}};
  dsx::Weights weights{mesh, dsx::make_gpt2({.vocabulary = 64, .positions = 16, .width = 32, .heads = 4, .layers = 2}), dsx::Recipe{}};
  dsx::Trainer trainer{weights, dsx::AdamW{.rate = 5e-3}, dsx::TokenLoss{}, {.rows = 8 * 16, .clip = 1}};

  for (int step = 1; step <= 60; ++step) {
    dsx::MicroBatch batch;
    for (int s = 0; s < 8; ++s) {
      std::vector<int> ids(16), targets(16);  // targets[t] is what follows ids[t]
      for (int t = 0; t < 16; ++t) ids[t] = (9 * s + step + t) % 64, targets[t] = (ids[t] + 1) % 64;
      batch.add(ids, targets, dsx::RowId(s) * 16);  // sequences may have any length, up to 128 rows in all
    }
    const dsx::Verdict verdict = trainer.step({&batch, 1});
    if (step == 1 || step % 20 == 0) std::printf("step %2d  loss %.4f  norm %.3f\n", step, verdict.loss, std::sqrt(verdict.squared_norm));
  }
}
