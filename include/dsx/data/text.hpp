// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Text before it becomes tokens: files and folders of it, what isn't UTF-8, and lines held out for validation.
///
///     const dsx::Texts book = dsx::read_texts({"genesis.txt", "notes/"});   // a folder stands for the text files in it
///     if (book.invalid_bytes) std::fputs((book.warning() + '\n').c_str(), stderr);
///     const auto [training, validation] = dsx::split_blocks(book.text, {.lines = 50, .every = 20});
#pragma once

#include <dsx/core/error.hpp>
#include <dsx/core/shape.hpp>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace dsx {

/// Bytes of the UTF-8 character at `at` (1 to 4); 0 where none begins: a stray or missing byte, an overlong form, a surrogate.
Extent utf8_length(std::string_view text, Extent at);

/// Where the characters that follow each other from `at` on end.
Extent utf8_end(std::string_view text, Extent at);

/// Bytes that belong to no UTF-8 character.
Extent count_invalid_bytes(std::string_view text);

/// Folders are replaced by the .txt, .md, .rst and .tex files below them, sorted by path; files stay, whatever their name.
/// dsx-E601 for a path that doesn't exist, dsx-E652 if nothing is left.
std::vector<std::filesystem::path> text_files(const std::vector<std::filesystem::path>& paths);

/// Several files as one text, each ended by a line feed.
struct Texts {
  std::vector<std::filesystem::path> files;
  std::string text;
  Extent invalid_bytes = 0;

  /// One sentence about the bytes that aren't UTF-8; empty if all are.
  std::string warning() const;
};

/// The one sentence about `invalid` of `bytes` bytes of text, for those who read it elsewhere; empty for 0.
std::string utf8_warning(Extent invalid, Extent bytes);

/// dsx-E652 if the files hold no byte at all.
Texts read_texts(const std::vector<std::filesystem::path>& paths);

struct BlockSplit {
  Extent lines = 50;  ///< of a block
  Extent every = 20;  ///< the last of so many blocks is held out
};

struct HeldOut {
  std::string training, validation;
};

/// Cuts a text into blocks of lines and holds back the last of each `every` blocks. A text of fewer blocks has no validation part.
HeldOut split_blocks(std::string_view text, BlockSplit split = {});

}  // namespace dsx
