// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include "io/io_support.hpp"

#include <dsx/data/corpus.hpp>
#include <dsx/io/atomic_file.hpp>

#include <doctest/doctest.h>

#include <cmath>

using namespace dsx;
using test::error_of, test::TemporaryFolder;

namespace {

std::string lines(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "line " + std::to_string(i % 37) + " of a text\n";
  return text;
}

}  // namespace

TEST_CASE("text becomes token files once, with what is held out apart") {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", lines(1200));
  std::vector<std::string> said;
  const CorpusOptions options{.data = {folder / "a.txt"}, .vocabulary = 300, .cache = folder / "cache",
                              .say = [&](std::string_view s) { said.emplace_back(s); }};
  const Corpus corpus = open_corpus(options);
  REQUIRE(corpus.tokenizer);
  REQUIRE(corpus.validation);
  CHECK(said.size() == 1);
  CHECK(said[0].find("training a tokenizer of 300 tokens") == 0);
  std::vector<int> ids(corpus.validation->size());
  corpus.validation->copy({0, ids.size()}, ids);
  CHECK(corpus.tokenizer->decode(ids).substr(0, 50) == split_blocks(lines(1200)).validation.substr(0, 50));
  const Corpus again = open_corpus(options);
  CHECK(said.size() == 1);
  CHECK(again.identity() == corpus.identity());
  CHECK(again.tokenizer->fingerprint() == corpus.tokenizer->fingerprint());
  CHECK(corpus.vocabulary() == corpus.tokenizer->size());
}

TEST_CASE("data of equally many tokens but other ones have another identity") {
  const TemporaryFolder folder;
  const auto identity = [&](const std::string& text) {
    write_file(folder / "a.txt", text);
    return open_corpus({.data = {folder / "a.txt"}, .tokenizer = DSX_GOLDEN "/tokenizer", .cache = folder / "cache"}).identity();
  };
  const std::string one = identity("one two three\n");
  CHECK(one != identity("one three two\n"));
  CHECK(one == identity("one two three\n"));
  CHECK(one.substr(0, 2) == identity("one three two\n").substr(0, 2));  // as many tokens
}

TEST_CASE("a token file is taken as it is, and bytes that aren't UTF-8 are told of") {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", lines(60) + "\xff\xfe");
  std::string said;
  const Corpus text = open_corpus({.data = {folder / "a.txt"}, .vocabulary = 280, .cache = folder / "cache",
                                   .say = [&](std::string_view s) { said += s; }});
  CHECK(!text.validation);
  CHECK(said.find("2 ") != said.npos);
  CHECK(said.find("UTF-8") != said.npos);
  const Corpus tokens = open_corpus({.data = {text.training.path()}});
  CHECK(tokens.training.size() == text.training.size());
  CHECK(!tokens.tokenizer);
  const auto mixed = error_of([&] { open_corpus({.data = {folder / "a.txt", text.training.path()}, .cache = folder / "cache"}); });
  CHECK(mixed == 715);
  CHECK(mixed.says(text.training.path().string() + " is a token file among 2 files"));
  CHECK(error_of([&] { open_corpus({.data = {text.training.path()}, .tokenizer = DSX_GOLDEN "/tokenizer"}); }) == 649);
  write_file(folder / "empty.txt", "");
  CHECK(error_of([&] { open_corpus({.data = {folder / "empty.txt"}, .cache = folder / "cache"}); }) == 652);
  CHECK(error_of([&] { open_corpus({.data = {folder / "absent"}, .cache = folder / "cache"}); }) == 601);
}

TEST_CASE("the unigram loss is the cross entropy under the training frequencies") {
  const TemporaryFolder folder;
  const auto made = [&](const char* name, const std::vector<int>& ids) {
    TokenFileWriter writer{folder / name, 4};
    writer.append(ids), writer.finish();
    return TokenFile{folder / name};
  };
  const TokenFile training = made("t", {0, 0, 0, 1, 1, 2}), judged = made("j", {0, 3});  // with one added: 4 3 2 1 of 10
  CHECK(unigram_loss(training, judged) == doctest::Approx(-(std::log(0.4) + std::log(0.1)) / 2));
}
