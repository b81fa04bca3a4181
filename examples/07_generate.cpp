// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Tokens from a model: greedy, sampled and by beam search, from one cache of keys and values.
// run: @source@/tests/golden/gpt2_tiny
// expect: greedy  ( \d+){8}
// expect: sampled ( \d+){8}
// expect: beams   ( \d+){8} +score -\d
#include <dsx/dsx.hpp>
#include <dsx/infer/generator.hpp>
#include <dsx/train/gpt2_files.hpp>

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]), 1;
  return dsx::launch(argc, argv, [&](dsx::Session& session) {
    const std::filesystem::path folder = argv[1];
    const dsx::GptConfig config = dsx::read_gpt2_config(folder / "config.json");
    const dsx::Mesh mesh{session, {.data = session.ranks()}};
    dsx::Weights weights{mesh, dsx::make_gpt2(dsx::shape_of(config)), dsx::Recipe{}};
    dsx::load_gpt2(folder, weights);

    dsx::Generator generator{weights, {.sequences = 3, .length = config.n_positions, .vocabulary = config.vocab_size}};
    const auto print = [](const char* name, const std::vector<int>& tokens, const std::string& more = "") {
      std::printf("%-8s", name);
      for (const int token : tokens) std::printf(" %d", token);
      std::printf("%s\n", more.c_str());
    };
    const std::vector<std::vector<int>> prompts{{11, 45, 7}, {120, 3, 99, 64, 2}};  // sequences may differ in length
    for (const auto& tokens : generator.generate(prompts, 8, {.temperature = 0})) print("greedy", tokens);
    const dsx::Decoding sampled{.temperature = 0.8, .top_k = 40, .top_p = 0.95, .seed = 7};
    for (const auto& tokens : generator.generate(prompts, 8, sampled)) print("sampled", tokens);
    const dsx::Beam best = generator.search(prompts[0], 8, {.beams = 3});
    print("beams", best.tokens, "  score " + std::to_string(best.score));
  });
}
