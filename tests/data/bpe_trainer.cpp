// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The trainer makes the merges that counting all pairs anew after each merge would make.
#include <io/io_support.hpp>

#include <dsx/core/random.hpp>
#include <dsx/data/bpe_trainer.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <map>
#include <set>

using namespace dsx;
using namespace dsx::test;

namespace {

/// The definition, with nothing incremental: words of GPT-2's pattern, all pairs counted for each merge, ties to the lower ids.
TokenizerParts trained_by_definition(std::string_view text, Extent merges) {
  const Tokenizer bytes = train_bpe("", {.vocabulary = 256, .special = {}});
  TokenizerParts parts = bytes.parts();
  std::map<std::string, Extent> words;
  for (Extent at = 0; at < text.size();) {  // of this test's texts: letters, with at most one space before
    const Extent end = std::min(text.find(' ', at + 1), text.size());
    ++words[std::string{text.substr(at, end - at)}];
    at = end;
  }
  std::map<std::string, std::vector<int>> ids;
  for (const auto& [word, count] : words)
    for (const char c : word) ids[word].push_back(*bytes.id(std::string(1, c)));
  std::set<std::string> known{parts.tokens.begin(), parts.tokens.end()};
  while (parts.merges.size() < merges) {
    std::map<std::pair<int, int>, Extent> counts;
    for (const auto& [word, count] : words)
      for (Extent i = 0; i + 1 < ids[word].size(); ++i) counts[{ids[word][i], ids[word][i + 1]}] += count;
    std::pair<int, int> best;
    Extent most = 1;
    for (const auto& [pair, count] : counts)
      if (count > most && !known.contains(parts.tokens[Extent(pair.first)] + parts.tokens[Extent(pair.second)])) best = pair, most = count;
    if (most < 2) break;
    const int product = int(parts.tokens.size());
    parts.merges.push_back({best.first, best.second});
    parts.tokens.push_back(parts.tokens[Extent(best.first)] + parts.tokens[Extent(best.second)]);
    known.insert(parts.tokens.back());
    for (auto& [word, sequence] : ids)
      for (Extent i = 0; i + 1 < sequence.size(); ++i)
        if (sequence[i] == best.first && sequence[i + 1] == best.second)
          sequence[i] = product, sequence.erase(sequence.begin() + std::ptrdiff_t(i) + 1);
  }
  return parts;
}

std::string random_words_text(std::uint64_t seed, Extent words, unsigned letters) {
  std::string text;
  for (RowId row = 0; row < words; ++row) {
    const RandomKey key{.seed = seed};
    if (row > 0) text += ' ';
    const Extent length = 1 + random_words(key, row, 0)[0] % 9;
    for (std::uint32_t i = 0; i < length; ++i) text += char('a' + random_words(key, row, i + 1)[1] % letters);
  }
  return text;
}

}  // namespace

TEST_CASE("incremental training equals training by the definition") {
  for (const unsigned letters : {1U, 2U, 3U, 8U}) {
    const std::string text = random_words_text(letters, 400, letters);
    const TokenizerParts expected = trained_by_definition(text, 120);
    const TokenizerParts given = train_bpe(text, {.vocabulary = 256 + 120, .special = {}}).parts();
    CAPTURE(letters);
    CHECK(given.tokens == expected.tokens);
    REQUIRE(given.merges.size() == expected.merges.size());
    for (Extent i = 0; i < given.merges.size(); ++i) {
      CHECK(given.merges[i].left == expected.merges[i].left);
      CHECK(given.merges[i].right == expected.merges[i].right);
    }
  }
}

TEST_CASE("training has the size asked for, special tokens last, and the same result each time") {
  const std::string text = random_words_text(9, 3000, 20);
  const Tokenizer first = train_bpe(text, {.vocabulary = 600, .special = {"<|endoftext|>", "<|pad|>"}});
  CHECK(first.size() == 600);
  CHECK(first.id("<|endoftext|>") == 598);
  CHECK(first.id("<|pad|>") == 599);
  CHECK(first.end_of_text() == 598);
  CHECK(first.decode(first.encode(text)) == text);
  CHECK(first.encode(text).size() * 3 < text.size() * 2);
  CHECK(train_bpe(text, {.vocabulary = 600, .special = {"<|endoftext|>", "<|pad|>"}}).to_json() == first.to_json());
  // Text that comes in pieces cut between words.
  Extent calls = 0;
  const Extent cut = text.find(' ', text.size() / 2);
  const Tokenizer pieces = train_bpe(
      [&]() -> std::optional<std::string> {
        ++calls;
        return calls == 1 ? std::optional{text.substr(0, cut)} : calls == 2 ? std::optional{text.substr(cut)} : std::nullopt;
      },
      {.vocabulary = 600, .special = {"<|endoftext|>", "<|pad|>"}});
  CHECK(pieces.fingerprint() == first.fingerprint());
  CHECK(Tokenizer::parse(first.to_json()).fingerprint() == first.fingerprint());  // read back, it is the same
  CHECK(train_bpe(text, {.vocabulary = 600, .special = {"<|endoftext|>", "<|end|>"}}).fingerprint() != first.fingerprint());
  CHECK(calls == 3);
}

TEST_CASE("a text with fewer pairs than merges asked for gives a smaller vocabulary") {
  const Tokenizer tokenizer = train_bpe("abab abab", {.vocabulary = 4096});
  CHECK(tokenizer.size() < 4096);
  CHECK(tokenizer.end_of_text() == int(tokenizer.size()) - 1);
  CHECK(train_bpe("", {.vocabulary = 4096}).size() == 257);
  // Bytes that aren't UTF-8 train nothing, and are encoded all the same.
  const Tokenizer bytes = train_bpe("\xff\xfe\xff\xfe\xff\xfe", {.vocabulary = 4096});
  CHECK(bytes.size() == 257);
  CHECK(bytes.encode("\xff\xfe").size() == 2);
}

TEST_CASE("a vocabulary that can't hold bytes and special tokens is refused") {
  const Refusal refusal = error_of([] { train_bpe("text", {.vocabulary = 257, .special = {"<a>", "<b>"}}); });
  CHECK(refusal == 646);
  CHECK(refusal.says("257"));
  CHECK(refusal.says("258"));
  CHECK(train_bpe("text", {.vocabulary = 258, .special = {"<a>", "<b>"}}).size() == 258);
}

TEST_CASE("training reports its progress up to the end") {
  std::vector<Extent> seen;
  Extent whole = 0;
  const auto note = [&](Extent merges, Extent wanted) { seen.push_back(merges), whole = wanted; };
  train_bpe(random_words_text(5, 2000, 20), {.vocabulary = 600, .progress = note});
  CHECK(whole == 600 - 257);
  CHECK(seen.size() > 4);
  CHECK(std::is_sorted(seen.begin(), seen.end()));
  CHECK(seen.back() == whole);
}

TEST_CASE("a text without breaks is trained on in seconds") {
  const auto start = std::chrono::steady_clock::now();
  std::string text;
  for (RowId row = 0; text.size() < 2'000'000; ++row)
    for (const std::uint32_t word : random_words({.seed = 1}, row, 0)) text += char('a' + word % 26);
  CHECK(train_bpe(text).size() == 4096);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds{60});
}
