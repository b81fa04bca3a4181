// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Text in, text out: a generator and a tokenizer together.
///
///     Generator generator{weights, {.length = 128, .vocabulary = tokenizer.size()}};
///     write_text(generator, tokenizer, "In the beginning", 40, {.temperature = 0.8}, [](std::string_view more) { std::cout << more; });
#pragma once

#include <dsx/data/tokenizer.hpp>
#include <dsx/infer/generator.hpp>

namespace dsx {

/// What follows a prompt (an empty one: the end of another text), up to one of `how.ends` (none: the tokenizer's end of text) or `tokens` of
/// them; 0: as many as the generator has room for. `show` is told each piece as soon as its characters are whole. Every rank calls it and gets
/// the same.
template <class Weights>
std::string write_text(Generator<Weights>& generator, const Tokenizer& tokenizer, std::string_view prompt, Extent tokens, Decoding how,
                       const std::function<void(std::string_view piece)>& show = {}) {
  std::vector<std::vector<int>> prompts{tokenizer.encode(prompt, {.special = Special::allowed, .begun = true})};
  const std::optional<int> end = tokenizer.end_of_text();
  if (how.ends.empty() && end) how.ends = {*end};
  if (prompts[0].empty()) prompts[0].push_back(end.value_or(0));
  if (tokens == 0) tokens = generator.length() - std::min(generator.length(), prompts[0].size());
  std::string text;
  StreamDecoder decoder{tokenizer};
  const auto take = [&](const std::string& piece) {
    if (show && !piece.empty()) show(piece);
    text += piece;
  };
  generator.generate(prompts, tokens, how, [&](Extent, int token) {
    if (!how.is_end(token)) take(decoder.push(token));
  });
  take(decoder.finish());
  return text;
}

}  // namespace dsx
