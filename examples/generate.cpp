// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Writes text with a GPT-2: a checkpoint of train_gpt2, or a folder of Hugging Face.
///
///     generate --load run --prompt "In the beginning" --tokens 100 --temperature 0.8 --seed 7
#include <dsx/infer/text.hpp>
#include <dsx/kernels/threads.hpp>
#include <dsx/train/gpt2_files.hpp>

#include "support/command_line.hpp"

int main(int argc, char** argv) {
  std::string load, prompt, tokenizer;
  dsx::Extent tokens = 0, threads = 0;
  dsx::Decoding how{.temperature = 0.8, .top_k = 40};
  CommandLine flag{"Writes text with a GPT-2."};
  flag({.group = "Model", .name = "--load", .text = "a run or checkpoint of train_gpt2, or a Hugging Face folder", .required = true}, load);
  flag({"Model", "--tokenizer", "folder or tokenizer.json; none: the model's folder has it"}, tokenizer);
  flag({"Text", "--prompt", "what the text begins with"}, prompt);
  flag({"Text", "--tokens", "new tokens; 0: as many as the model has positions for"}, tokens);
  flag({"Text", "--temperature", "0: always the likeliest token", 0}, how.temperature);
  flag({"Text", "--top-k", "draw among the k likeliest; 0: among all"}, how.top_k);
  flag({"Text", "--top-p", "draw among the likeliest that make up this probability"}, how.top_p);
  flag({"Text", "--beams", "more than 1: beam search", 1}, how.beams);
  flag({"Text", "--length-penalty", "of beam search"}, how.length_penalty);
  flag({"Text", "--seed", "of the draws"}, how.seed);
  flag({"Ranks", "--threads", "OpenMP threads; 0: all processors"}, threads);
  if (const auto code = flag.read(argc, argv)) return *code;
  return dsx::launch(argc, argv, [&](dsx::Session& session) {
    dsx::kernels::use_threads(threads ? threads : dsx::kernels::processors());
    const std::filesystem::path given{load}, folder = std::filesystem::exists(given / "config.json") ? given : dsx::newest_checkpoint(given);
    const auto words = dsx::Tokenizer::load(tokenizer.empty() ? folder : std::filesystem::path{tokenizer});
    const dsx::GptConfig config = dsx::config_for(folder, 1, words.size());
    const dsx::Mesh mesh{session, {.data = session.ranks()}};
    dsx::Weights weights{mesh, dsx::make_gpt2(dsx::shape_of(config)), dsx::Recipe{}};
    dsx::load_gpt2(folder, weights);
    dsx::Generator generator{weights, {.sequences = how.beams, .length = config.n_positions, .vocabulary = config.vocab_size}};
    const auto show = [&](std::string_view text) {
      if (session.is_root()) std::printf("%.*s", int(text.size()), text.data()), std::fflush(stdout);
    };
    show(prompt);
    dsx::write_text(generator, words, prompt, tokens, how, show);
    show("\n");
  });
}
