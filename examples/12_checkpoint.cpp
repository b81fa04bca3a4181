// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A checkpoint made by two ranks, read by another layout: tensors are known by name, whoever holds them.
// run: @temporary@/checkpoint
// expect: saved after step 5
// expect: resumed at step 5 on tensor=2: step 6 .* differs by [0-9.]+e-(0[5-9]|1\d)
#include <dsx/comm/mesh_text.hpp>
#include <dsx/dsx.hpp>
#include <dsx/train/checkpoint.hpp>

/// Trains from step to step on a mesh and gives the last loss; loads first and saves at the end where asked to.
double train(dsx::Degrees degrees, auto recipe, const char* load_from, const char* save_to, dsx::Extent until) {
  double result = 0;
  dsx::launch_threads(degrees.ranks(), [&](dsx::Session& session) {
    const dsx::Mesh mesh{session, degrees};
    dsx::Weights weights{mesh, dsx::make_gpt2({.vocabulary = 64, .positions = 16, .width = 32, .heads = 4, .layers = 2}), recipe};
    dsx::Trainer trainer{weights, dsx::AdamW{.rate = 5e-3}, dsx::TokenLoss{}, {.rows = 8 * 16 / degrees.data, .clip = 1}};
    if (load_from) dsx::load(load_from, trainer);
    double loss = 0;
    while (trainer.steps() < until) {
      dsx::MicroBatch batch;
      const dsx::Range mine = mesh.part(dsx::Axes::data, 8);  // of the step's eight sequences
      for (dsx::Extent s = mine.begin; s < mine.end; ++s) {
        std::vector<int> ids(16), targets(16);
        for (int t = 0; t < 16; ++t) ids[t] = (9 * int(s) + int(trainer.steps()) + t) % 64, targets[t] = (ids[t] + 1) % 64;
        batch.add(ids, targets, s * 16);
      }
      loss = trainer.step({&batch, 1}).loss;
    }
    if (save_to) dsx::save(save_to, trainer);
    if (session.is_root()) result = loss;
  });
  return result;
}

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]), 1;
  const double straight = train({}, dsx::Recipe{}, nullptr, nullptr, 6);
  train({.data = 2}, dsx::Recipe{dsx::ZeRO<3>{}}, nullptr, argv[1], 5);
  std::printf("saved after step 5\n");
  const dsx::Degrees other{.tensor = 2};
  const double resumed = train(other, dsx::Recipe{}, argv[1], nullptr, 6);
  const double apart = std::abs(resumed - straight) + 1e-12;
  std::printf("resumed at step 5 on %s: step 6 has loss %.4f, which differs by %.1e\n", dsx::to_text(other).c_str(), resumed, apart);
}
