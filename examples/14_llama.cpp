// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A Llama, Qwen2 or Mixtral of Hugging Face, read from its folder (one file or shards), and how it goes on with a prompt.
// run: @source@/tests/golden/llama_tiny 11 45 7
// expect: llama: 3 layers of width 48, 6 query heads on 2 keys, 82\.8 k parameters
// expect: (\d+ ){12}
#include <dsx/comm/launch.hpp>
#include <dsx/infer/text.hpp>
#include <dsx/train/llama_files.hpp>
#include <dsx/train/progress.hpp>

/// Text if the folder has a tokenizer, else tokens by number.
void continue_prompt(auto& generator, const std::filesystem::path& folder, const std::vector<std::string>& words) {
  const dsx::Decoding how{.temperature = 0, .ends = dsx::read_end_tokens(folder)};
  if (std::filesystem::exists(folder / "tokenizer.json")) {
    const auto tokenizer = dsx::Tokenizer::load(folder);
    std::string prompt;
    for (const std::string& word : words) prompt += (prompt.empty() ? "" : " ") + word;
    dsx::write_text(generator, tokenizer, prompt, 40, how, [](std::string_view more) { std::printf("%.*s", int(more.size()), more.data()); });
  } else {
    std::vector<std::vector<int>> prompts(1);
    for (const std::string& word : words) prompts[0].push_back(std::stoi(word));
    generator.generate(prompts, 12, how, [](dsx::Extent, int token) { std::printf("%d ", token); });
  }
  std::printf("\n");
}

int main(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "usage: %s FOLDER WORDS\n", argv[0]), 1;
  return dsx::launch(argc, argv, [&](dsx::Session& session) {
    const std::filesystem::path folder = argv[1];
    const dsx::LlamaConfig config = dsx::read_llama_config(folder / "config.json");
    const dsx::Mesh mesh{session, {.tensor = session.ranks()}};
    const auto run = [&](const char* family, auto model) {
      dsx::Weights weights{mesh, model, dsx::Recipe{}};
      dsx::load_llama(folder, weights);
      const std::string parameters = dsx::count_text(double(weights.parameters()));
      std::printf("%s: %zu layers of width %zu, %zu query heads on %zu keys, %s parameters\n", family, config.num_hidden_layers, config.hidden_size,
                  config.num_attention_heads, config.num_key_value_heads, parameters.c_str());
      const dsx::Extent length = std::min<dsx::Extent>(config.max_position_embeddings, 2048);
      dsx::Generator generator{weights, {.length = length, .vocabulary = config.vocab_size}};
      continue_prompt(generator, folder, {argv + 2, argv + argc});
    };
    const dsx::LlamaShape shape = dsx::shape_of(config);
    if (config.family == dsx::LlamaConfig::Family::llama) run("llama", dsx::make_llama(shape));
    if (config.family == dsx::LlamaConfig::Family::qwen2) run("qwen2", dsx::make_qwen2(shape));
    if (config.family == dsx::LlamaConfig::Family::mixtral) run("mixtral", dsx::make_mixtral(shape, dsx::router_of(config)));
  });
}
