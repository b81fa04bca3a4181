// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// UTF-8 is recognised as the standard says, folders give their texts in order, and held-out lines are never trained on.
#include <io/io_support.hpp>

#include <dsx/data/text.hpp>
#include <dsx/io/atomic_file.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;
namespace fs = std::filesystem;

TEST_CASE("every code point is one character, and nothing else is") {
  for (std::uint32_t code = 0; code < 0x120000; ++code) {
    std::string text;  // by the bit layout alone, which also spells what the standard forbids
    if (code < 0x80) text = {char(code)};
    else if (code < 0x800) text = {char(0xC0 | code >> 6), char(0x80 | (code & 0x3F))};
    else if (code < 0x10000) text = {char(0xE0 | code >> 12), char(0x80 | (code >> 6 & 0x3F)), char(0x80 | (code & 0x3F))};
    else text = {char(0xF0 | code >> 18), char(0x80 | (code >> 12 & 0x3F)), char(0x80 | (code >> 6 & 0x3F)), char(0x80 | (code & 0x3F))};
    const bool allowed = code < 0x110000 && (code < 0xD800 || code > 0xDFFF);
    if (utf8_length(text, 0) != (allowed ? text.size() : 0)) FAIL_CHECK("code point " << code);
    if (allowed && code >= 0x80 && count_invalid_bytes(text.substr(0, text.size() - 1)) != text.size() - 1) FAIL_CHECK("cut code point " << code);
  }
}

TEST_CASE("bytes outside characters are counted") {
  CHECK(count_invalid_bytes("") == 0);
  CHECK(count_invalid_bytes("plain text, longer than eight bytes; ключ 日本 🙂") == 0);
  CHECK(count_invalid_bytes("\xC0\x80") == 2);              // an overlong zero
  CHECK(count_invalid_bytes("\xE0\x9F\xBF") == 3);          // overlong
  CHECK(count_invalid_bytes("\xF0\x8F\xBF\xBF") == 4);      // overlong
  CHECK(count_invalid_bytes("\xF5\x80\x80\x80") == 4);      // above U+10FFFF
  CHECK(count_invalid_bytes("abcdefgh\x80ijklmnop\xE2\x82") == 3);
  CHECK(count_invalid_bytes("\xE2\x82" "A") == 2);
  CHECK(utf8_end("abcdefghij\xFFk", 0) == 10);
  CHECK(utf8_end("abcdefghij\xFFk", 10) == 10);
  CHECK(utf8_end("abcdefghij\xFFk", 11) == 12);
}

TEST_CASE("a folder stands for the texts below it, in the order of their paths") {
  const TemporaryFolder folder;
  for (const char* name : {"b.txt", "a.md", "c.bin", "sub/z.rst", "sub/deep/y.tex", "sub/.txt"}) {
    fs::create_directories((folder / name).parent_path());
    write_file(folder / name, concat("in ", name));
  }
  const auto files = text_files({folder / "c.bin", folder.path()});
  const std::vector<fs::path> expected{folder / "c.bin", folder / "a.md", folder / "b.txt", folder / "sub/deep/y.tex", folder / "sub/z.rst"};
  CHECK(files == expected);
  const Texts texts = read_texts({folder.path()});
  CHECK(texts.text == "in a.md\nin b.txt\nin sub/deep/y.tex\nin sub/z.rst\n");
  CHECK(texts.warning().empty());
  write_file(folder / "bad.txt", "caf\xE9 \xFF\n");
  const Texts bad = read_texts({folder / "bad.txt"});
  CHECK(bad.invalid_bytes == 2);
  CHECK(bad.warning().find("2 of 7 bytes") != std::string::npos);
}

TEST_CASE("paths without text are refused") {
  const TemporaryFolder folder;
  const Refusal absent = error_of([&] { text_files({folder / "absent.txt"}); });
  CHECK(absent == 601);
  CHECK(absent.says("absent.txt"));
  fs::create_directories(folder / "empty");
  const Refusal none = error_of([&] { text_files({folder / "empty"}); });
  CHECK(none == 652);
  CHECK(none.says("empty"));
  CHECK(error_of([] { text_files({}); }) == 652);
  write_file(folder / "nothing.txt", "");
  CHECK(error_of([&] { read_texts({folder / "nothing.txt"}); }) == 652);
  CHECK(error_of([] { split_blocks("a\n", {.lines = 0}); }) == 652);
  CHECK(error_of([] { split_blocks("a\n", {.every = 0}); }) == 652);
}

TEST_CASE("every twentieth block of fifty lines is held out, and no line is lost") {
  std::string text;
  for (int i = 0; i < 2130; ++i) text += concat("line ", i, '\n');
  text += "line 2130";  // without a line feed
  const HeldOut parts = split_blocks(text);
  std::string training, validation;
  for (Extent at = 0, line = 0; at < text.size(); ++line) {
    const Extent end = std::min(text.find('\n', at), text.size() - 1) + 1;
    (line / 50 % 20 == 19 ? validation : training) += text.substr(at, end - at);
    at = end;
  }
  CHECK(parts.training == training);
  CHECK(parts.validation == validation);
  CHECK(parts.validation.starts_with("line 950\n"));
  CHECK(parts.validation.ends_with("line 1999\n"));
  CHECK(split_blocks("a\nb\nc\nd", {.lines = 1, .every = 2}).validation == "b\nd");
  CHECK(split_blocks("a\nb\n").validation.empty());
  CHECK(split_blocks("").training.empty());
}
