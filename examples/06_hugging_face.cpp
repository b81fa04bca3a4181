// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A GPT-2 of Hugging Face, read from its folder, judged on a batch, and written back byte for byte.
// run: @source@/tests/golden/gpt2_tiny @temporary@/copy
// expect: 4 layers of width 48, 125\.\d k parameters
// expect: loss [0-9.]+
// expect: model\.safetensors: the same bytes
#include <dsx/dsx.hpp>
#include <dsx/train/gpt2_files.hpp>
#include <dsx/train/progress.hpp>

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: %s FOLDER COPY\n", argv[0]), 1;
  return dsx::launch(argc, argv, [&](dsx::Session& session) {
    const std::filesystem::path folder = argv[1], copy = argv[2];
    const dsx::GptConfig config = dsx::read_gpt2_config(folder / "config.json");
    const dsx::Mesh mesh{session, {.data = session.ranks()}};
    dsx::Weights weights{mesh, dsx::make_gpt2(dsx::shape_of(config)), dsx::Recipe{}};
    dsx::load_gpt2(folder, weights);
    const std::string parameters = dsx::count_text(double(weights.parameters()));
    std::printf("%zu layers of width %zu, %s parameters\n", config.n_layer, config.n_embd, parameters.c_str());

    dsx::MicroBatch batch;
    batch.add(std::vector{11, 45, 7, 120}, std::vector{45, 7, 120, 3}, 0);
    dsx::Evaluator evaluator{weights, dsx::TokenLoss{}, 16};
    std::printf("loss %.6f\n", evaluator.loss({&batch, 1}));

    dsx::export_gpt2(copy, weights, config);  // loads with GPT2LMHeadModel.from_pretrained
    const bool same = dsx::read_file(folder / "model.safetensors") == dsx::read_file(copy / "model.safetensors");
    std::printf("model.safetensors: %s\n", same ? "the same bytes" : "other bytes");
  });
}
