// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Text from a generator is the text of its tokens, told in whole characters.
#include <dsx/data/bpe_trainer.hpp>
#include <dsx/data/text.hpp>
#include <dsx/dsx.hpp>
#include <dsx/infer/text.hpp>

#include <doctest/doctest.h>

using namespace dsx;

TEST_CASE("text is what a generator's tokens stand for, piece by piece") {
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  const Tokenizer tokenizer = train_bpe("to be, or not to be; that is the question, \xc3\xa4nd so on", {.vocabulary = 270});
  Weights weights{mesh, make_gpt2({.vocabulary = tokenizer.size(), .positions = 200, .width = 16, .heads = 2, .layers = 1}), Recipe{}};
  Generator generator{weights, {.length = 200, .vocabulary = tokenizer.size()}};
  const int end = *tokenizer.end_of_text();
  bool ended = false;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const Decoding how{.temperature = 1.5, .seed = seed};
    for (const char* prompt : {"", "to be"}) {
      std::string shown;
      const std::string text = write_text(generator, tokenizer, prompt, 0, how, [&](std::string_view piece) { shown += piece; });
      const std::vector<std::vector<int>> prompts{*prompt ? tokenizer.encode(prompt) : std::vector{end}};
      Decoding until_end = how;
      until_end.ends = {end};
      std::vector<int> tokens = generator.generate(prompts, 200 - prompts[0].size(), until_end)[0];
      if (tokens.back() == end) ended = true, tokens.pop_back();
      else CHECK(tokens.size() + prompts[0].size() == 200);  // all the room there is
      CHECK(text == tokenizer.decode(tokens));
      CHECK(shown == text);
    }
  }
  CHECK(ended);  // so the end of text was seen, and isn't part of the text
  CHECK(tokenizer.encode(write_text(generator, tokenizer, "be", 3, {.temperature = 0})).size() <= 3);
}

TEST_CASE("a prompt begins as the tokenizer's template does, and doesn't end as one") {
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  TokenizerParts parts = train_bpe("to be, or not to be", {.vocabulary = 262}).parts();
  parts.before = {3}, parts.after = {4};
  const Tokenizer tokenizer{std::move(parts)};
  Weights weights{mesh, make_gpt2({.vocabulary = tokenizer.size(), .positions = 32, .width = 16, .heads = 2, .layers = 1}), Recipe{}};
  Generator generator{weights, {.length = 32, .vocabulary = tokenizer.size()}};
  for (const char* prompt : {"", "to be"}) {
    std::vector<std::vector<int>> prompts{tokenizer.encode(prompt)};
    prompts[0].insert(prompts[0].begin(), 3);
    const Decoding how{.temperature = 1.5, .seed = 2, .ends = {*tokenizer.end_of_text()}};
    std::vector<int> tokens = generator.generate(prompts, 12, how)[0];
    if (how.is_end(tokens.back())) tokens.pop_back();
    CHECK(write_text(generator, tokenizer, prompt, 12, how) == tokenizer.decode(tokens));
  }
}

TEST_CASE("a character of several bytes is told in one piece") {
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  const Tokenizer tokenizer = train_bpe("", {.vocabulary = 257});  // bytes: most drawn ones are halves of characters
  Weights weights{mesh, make_gpt2({.vocabulary = 257, .positions = 100, .width = 16, .heads = 2, .layers = 1}), Recipe{}};
  Generator generator{weights, {.length = 100, .vocabulary = 257}};
  Extent characters = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed)
    write_text(generator, tokenizer, "ab", 98, {.temperature = 1, .seed = seed}, [&](std::string_view piece) {
      for (Extent at = 0; at < piece.size(); at += std::max<Extent>(utf8_length(piece, at), 1)) characters += utf8_length(piece, at) > 1;
    });
  CHECK(characters > 0);
}
