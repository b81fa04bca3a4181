// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What is written is read back; every cut, every flipped bit and every mismatch is found; a text is tokenised once.
#include <io/io_support.hpp>

#include <dsx/data/bpe_trainer.hpp>
#include <dsx/data/token_file.hpp>
#include <dsx/io/atomic_file.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <numeric>
#include <thread>

using namespace dsx;
using namespace dsx::test;
namespace fs = std::filesystem;

namespace {

std::vector<int> all_of(const TokenFile& file) {
  std::vector<int> ids(file.size());
  file.copy({0, file.size()}, ids);
  return ids;
}

/// The bytes of a token file of these ids.
std::string written(Extent vocabulary, const std::vector<int>& ids, std::uint64_t fingerprint = 77) {
  const TemporaryFolder folder;
  TokenFileWriter writer{folder / "tokens.bin", vocabulary, fingerprint};
  writer.append(ids);
  writer.finish();
  return read_file(folder / "tokens.bin");
}

Refusal refusal_of(const std::string& bytes, TokenFileOptions options = {}) {
  return error_of([&] { TokenFile::in_memory(as_bytes(bytes), options, "t.bin"); });
}

template <class T>
std::string with(std::string bytes, Extent at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
  return bytes;
}

}  // namespace

TEST_CASE("ids come back from a token file, 2 bytes each up to a vocabulary of 65,536, else 4") {
  const TemporaryFolder folder;
  for (const Extent vocabulary : {300, 65'536, 65'537, 1 << 20}) {
    std::vector<int> ids(700'001);
    for (Extent i = 0; i < ids.size(); ++i) ids[i] = int(i * 7919 % vocabulary);
    ids[5] = int(vocabulary) - 1;
    TokenFileWriter writer{folder / "tokens.bin", vocabulary, 42};
    for (Extent at = 0; at < ids.size(); at += 100'000) writer.append(std::span{ids}.subspan(at, std::min<Extent>(100'000, ids.size() - at)));
    CHECK((vocabulary != 300 || !fs::exists(folder / "tokens.bin")));  // not before it is whole
    writer.finish();
    const TokenFile file{folder / "tokens.bin", {.vocabulary = vocabulary, .fingerprint = 42}};
    CHECK(file.size() == ids.size());
    CHECK(file.vocabulary() == vocabulary);
    CHECK(file.fingerprint() == 42);
    CHECK(all_of(file) == ids);
    CHECK(file[5] == int(vocabulary) - 1);
    std::vector<int> part(10);
    file.copy({.begin = 699'991, .end = 700'001}, part);
    CHECK(std::equal(part.begin(), part.end(), ids.end() - 10));
    CHECK(fs::file_size(folder / "tokens.bin") == 56 + ids.size() * (vocabulary > 65'536 ? 4 : 2));
  }
}

TEST_CASE("a token file that was cut off anywhere is refused") {
  const std::string bytes = written(300, {1, 2, 3, 299, 0});
  CHECK(refusal_of(bytes) == 0);
  for (Extent size = 0; size < bytes.size(); ++size) {
    CAPTURE(size);
    const Refusal refusal = refusal_of(bytes.substr(0, size));
    CHECK(refusal == 647);
    CHECK(refusal.says(std::to_string(size)));
  }
  CHECK(refusal_of(bytes + '\0') == 647);
}

TEST_CASE("every flipped bit of a token file is found") {
  const std::string bytes = written(300, {1, 2, 3, 299, 0, 17});
  for (Extent bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = char(flipped[bit / 8] ^ 1 << bit % 8);
    CAPTURE(bit);
    CHECK(refusal_of(flipped).number >= 647);
  }
}

TEST_CASE("a token file's errors hold the values") {
  const std::string bytes = written(300, {1, 2, 3, 299, 0});
  const auto check = [](const Refusal& refusal, int number, std::vector<std::string_view> words) {
    CAPTURE(refusal.text);
    CHECK(refusal == number);
    for (const std::string_view word : words) CHECK(refusal.says(word));
  };
  check(refusal_of("{\"a tokenizer\": 1, \"or any other file\": 2, \"long enough\": true}"), 648, {"t.bin", "dsxtoken"});
  check(refusal_of(with(bytes, 8, 9U)), 648, {"version 9"});
  check(refusal_of(with(bytes, 12, 4U)), 648, {"300", "4 bytes"});
  check(refusal_of(with(bytes, 16, std::uint64_t(1) << 60)), 648, {"1152921504606846976"});
  check(refusal_of(with(bytes, bytes.size() - 24, std::uint64_t(1) << 60)), 647, {"1152921504606846976", "10 bytes"});
  check(refusal_of(bytes, {.vocabulary = 50257}), 649, {"300", "50257"});
  check(refusal_of(bytes, {.fingerprint = 78}), 649, {"000000000000004d", "000000000000004e"});
  check(refusal_of(with(bytes, 32 + 2 * 2, std::uint16_t(300))), 650, {"token 2 of 5", "300"});
  check(refusal_of(with(bytes, 32, std::uint16_t(8))), 647, {"checksum"});
  CHECK(refusal_of(with(bytes, 32, std::uint16_t(8)), {.verify = false}) == 0);
  CHECK(error_of([] { TokenFile{"/nowhere/tokens.bin"}; }) == 601);

  const TokenFile file = TokenFile::in_memory(as_bytes(bytes));
  std::vector<int> three(3);
  check(error_of([&] { file.copy({3, 6}, three); }), 650, {"3 to 6", "5"});
  check(error_of([&] { file.copy({0, 2}, three); }), 650, {"3 places"});
  check(error_of([&] { file[5]; }), 650, {"token 5", "of 5"});
}

TEST_CASE("an empty token file and ids outside the vocabulary aren't written") {
  const TemporaryFolder folder;
  {
    TokenFileWriter writer{folder / "tokens.bin", 300};
    CHECK(error_of([&] { writer.finish(); }) == 652);
    for (const int id : {-1, 300}) {
      const Refusal refusal = error_of([&] { writer.append(std::vector{id}); });
      CHECK(refusal == 650);
      CHECK(refusal.says(std::to_string(id)));
    }
  }
  CHECK(fs::is_empty(folder.path()));
  // As a file that someone else made.
  std::string bytes = written(300, {1});
  bytes.erase(32, 2);
  const Refusal refusal = refusal_of(with(bytes, 32, std::uint64_t(0)));
  CHECK(refusal == 652);
  CHECK(refusal.says("0 tokens"));
}

TEST_CASE("texts are tokenised once, and again when they or the tokenizer change") {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", "the first text, the first");
  write_file(folder / "b.txt", "the second\xFF");
  const Tokenizer tokenizer = train_bpe("the first the second the first", {.vocabulary = 270});
  const int end = *tokenizer.end_of_text();
  const std::vector<fs::path> files{folder / "a.txt", folder / "b.txt"};
  Extent done = 0, whole = 0;
  const auto progress = [&](Extent now, Extent all) { done = now, whole = all; };

  const Tokenised first = tokenise_cached(files, tokenizer, folder / "cache", progress);
  CHECK_FALSE(first.from_cache);
  CHECK(first.invalid_bytes == 1);
  CHECK(done == 36);
  CHECK(whole == 36);
  std::vector<int> expected;
  for (const fs::path& file : files) {
    for (const int id : tokenizer.encode(read_file(file))) expected.push_back(id);
    expected.push_back(end);
  }
  CHECK(all_of(first.tokens) == expected);
  CHECK(first.tokens.vocabulary() == tokenizer.size());

  done = 0;
  const Tokenised second = tokenise_cached(files, tokenizer, folder / "cache", progress);
  CHECK(second.from_cache);
  CHECK(second.invalid_bytes == 1);
  CHECK(done == 0);
  CHECK(second.tokens.path() == first.tokens.path());
  CHECK(all_of(second.tokens) == expected);
  // The text as such is another list of texts than two files of it, and a moved border between two files changes the key too.
  CHECK_FALSE(tokenise_cached("the first text, the firstthe second\xFF", tokenizer, folder / "cache").from_cache);
  write_file(folder / "a.txt", "the first text, the firs"), write_file(folder / "b.txt", "tthe second\xFF");
  CHECK_FALSE(tokenise_cached(files, tokenizer, folder / "cache").from_cache);
  CHECK_FALSE(tokenise_cached(files, train_bpe("the", {.vocabulary = 258}), folder / "cache").from_cache);

  // A damaged file in the cache is made anew.
  std::string bytes = read_file(first.tokens.path());
  bytes[40] = char(bytes[40] ^ 1);
  write_file(second.tokens.path(), bytes);
  write_file(folder / "a.txt", "the first text, the first"), write_file(folder / "b.txt", "the second\xFF");
  const Tokenised third = tokenise_cached(files, tokenizer, folder / "cache");
  CHECK_FALSE(third.from_cache);
  CHECK(all_of(third.tokens) == expected);

  CHECK(error_of([&] { tokenise_cached("", tokenizer, folder / "cache"); }) == 652);
  write_file(folder / "file", "");
  CHECK(error_of([&] { tokenise_cached("text", tokenizer, folder / "file" / "cache"); }) == 602);
}

TEST_CASE("ranks that tokenise one text at the same time all get it") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer = train_bpe("some words and some more words", {.vocabulary = 270});
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += concat("some words ", i, '\n');
  std::vector<std::thread> ranks;
  std::vector<Extent> sizes(4, 0);
  for (Extent r = 0; r < sizes.size(); ++r) ranks.emplace_back([&, r] { sizes[r] = tokenise_cached(text, tokenizer, folder.path()).tokens.size(); });
  for (std::thread& rank : ranks) rank.join();
  CHECK(sizes == std::vector<Extent>(4, tokenizer.encode(text).size() + 1));
  CHECK(std::distance(fs::directory_iterator{folder.path()}, fs::directory_iterator{}) == 1);
}
