// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// UTF-8 by the table of well-formed byte sequences in the Unicode standard (table 3-7), and files of text.
///
///     dsx::utf8_length("\xE2\x82\xAC", 0);   // 3, the euro sign
#include <dsx/data/text.hpp>

#include "mapped_file.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace dsx {

namespace fs = std::filesystem;

Extent utf8_length(std::string_view text, Extent at) {
  const auto byte = [&](Extent i) { return at + i < text.size() ? std::uint8_t(text[at + i]) : std::uint8_t(0); };
  const auto within = [](std::uint8_t b, int low, int high) { return low <= b && b <= high; };
  const auto continues = [&](Extent i) { return within(byte(i), 0x80, 0xBF); };
  if (at >= text.size()) return 0;
  const std::uint8_t first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  if (within(first, 0xC2, 0xDF)) return continues(1) ? 2 : 0;
  if (within(first, 0xE0, 0xEF)) return within(second, first == 0xE0 ? 0xA0 : 0x80, first == 0xED ? 0x9F : 0xBF) && continues(2) ? 3 : 0;
  if (within(first, 0xF0, 0xF4))
    return within(second, first == 0xF0 ? 0x90 : 0x80, first == 0xF4 ? 0x8F : 0xBF) && continues(2) && continues(3) ? 4 : 0;
  return 0;
}

Extent utf8_end(std::string_view text, Extent at) {
  while (at < text.size()) {
    std::uint64_t eight = ~std::uint64_t(0);
    if (at + 8 <= text.size()) std::memcpy(&eight, text.data() + at, 8);
    if ((eight & 0x8080808080808080ULL) == 0) {
      at += 8;
    } else if (const Extent length = utf8_length(text, at)) {
      at += length;
    } else {
      break;
    }
  }
  return at;
}

Extent count_invalid_bytes(std::string_view text) {
  Extent invalid = 0;
  for (Extent at = 0; (at = utf8_end(text, at)) < text.size(); ++at) ++invalid;
  return invalid;
}

std::vector<fs::path> text_files(const std::vector<fs::path>& paths) {
  std::vector<fs::path> files;
  for (const fs::path& path : paths) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (!fs::exists(status)) fail<601>("can't find '", path, "': ", error.message());
    if (!fs::is_directory(status)) {
      files.push_back(path);
      continue;
    }
    std::vector<fs::path> found;
    try {
      for (const auto& entry : fs::recursive_directory_iterator{path}) {
        const fs::path ending = entry.path().extension();
        const bool text = ending == ".txt" || ending == ".md" || ending == ".rst" || ending == ".tex";
        if (text && entry.is_regular_file()) found.push_back(entry.path());
      }
    } catch (const fs::filesystem_error& e) {
      fail<601>("can't list '", path, "': ", e.code().message());
    }
    std::ranges::sort(found);
    files.insert(files.end(), found.begin(), found.end());
  }
  if (files.empty())
    fail<652>("no file of text in ", paths.empty() ? std::string{"an empty list of paths"} : paths.front().string(),
              ": a folder is searched for .txt, .md, .rst and .tex");
  return files;
}

std::string utf8_warning(Extent invalid, Extent bytes) {
  return invalid == 0 ? std::string{} : concat("warning: ", invalid, " of ", bytes, " bytes of text aren't UTF-8; they are encoded byte by byte");
}

std::string Texts::warning() const { return utf8_warning(invalid_bytes, text.size()); }

Texts read_texts(const std::vector<fs::path>& paths) {
  Texts texts{.files = text_files(paths), .text = {}, .invalid_bytes = 0};
  for (const fs::path& file : texts.files) {
    const MappedFile mapped{file};
    texts.text += mapped.view();
    if (!texts.text.empty() && texts.text.back() != '\n') texts.text += '\n';
  }
  if (texts.text.empty()) fail<652>(texts.files.size(), " files hold no text, the first of them ", texts.files.front());
  texts.invalid_bytes = count_invalid_bytes(texts.text);
  return texts;
}

HeldOut split_blocks(std::string_view text, BlockSplit split) {
  if (split.lines == 0 || split.every == 0)
    fail<652>("a text can't be cut into blocks of ", split.lines, " lines, one of ", split.every, " held out");
  HeldOut parts;
  for (Extent begin = 0, block = 0; begin < text.size(); ++block) {
    Extent end = begin;
    for (Extent line = 0; line < split.lines && end < text.size(); ++line) end = std::min(text.find('\n', end), text.size() - 1) + 1;
    (block % split.every == split.every - 1 ? parts.validation : parts.training) += text.substr(begin, end - begin);
    begin = end;
  }
  return parts;
}

}  // namespace dsx
