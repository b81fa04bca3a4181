// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A file of token ids: written once, mapped into memory for reading, so that its size doesn't matter.
///
///     auto [tokens, invalid, cached] = dsx::tokenise_cached({"book.txt"}, tokenizer, "cache");
///     std::vector<int> window(65);
///     tokens.copy({.begin = 1000, .end = 1065}, window);
///     dsx::TokenFile again{tokens.path(), {.vocabulary = 50257}};   // dsx-E649 if it was made for another vocabulary
///
/// Little-endian: "dsxtoken", version, bytes an id, vocabulary, fingerprint of the tokenizer; the ids, 2 bytes each up to a vocabulary
/// of 65,536, else 4; their number, their checksum, "dsxtoken" (at the end, since ids are written as they come).
#pragma once

#include <dsx/data/text.hpp>
#include <dsx/data/tokenizer.hpp>

#include <cstddef>
#include <memory>
#include <span>

namespace dsx {

/// What a reader asks of a token file.
struct TokenFileOptions {
  Extent vocabulary = 0;          ///< the model's; 0: any
  std::uint64_t fingerprint = 0;  ///< Tokenizer::fingerprint(); 0: any
  bool verify = true;             ///< read all ids once and check them and their checksum; else only header and size
};

/// Reads; copies share the mapping.
class TokenFile {
 public:
  explicit TokenFile(const std::filesystem::path& file, TokenFileOptions options = {});
  /// A token file in memory, which must live as long as this. `name` leads the error messages.
  static TokenFile in_memory(std::span<const std::byte> bytes, TokenFileOptions options = {}, std::string_view name = "token file");

  Extent size() const { return count_; }
  Extent vocabulary() const { return vocabulary_; }
  std::uint64_t fingerprint() const { return fingerprint_; }
  /// Over vocabulary, fingerprint and ids, as the file has it.
  std::uint64_t checksum() const { return checksum_; }
  const std::filesystem::path& path() const { return path_; }

  int operator[](Extent i) const;
  /// The ids of a range into a buffer of its size; dsx-E650 if they don't lie in the file.
  void copy(Range range, std::span<int> into) const;

 private:
  TokenFile() = default;
  void read(std::span<const std::byte> bytes, const TokenFileOptions& options, std::string_view name);

  std::shared_ptr<const void> mapping_;
  const std::byte* ids_ = nullptr;
  Extent count_ = 0, vocabulary_ = 0, width_ = 2;
  std::uint64_t fingerprint_ = 0, checksum_ = 0;
  std::filesystem::path path_;
};

/// Writes under a temporary name beside the file; finish() syncs and renames. Without finish() the file's old content stays.
class TokenFileWriter {
 public:
  TokenFileWriter(const std::filesystem::path& file, Extent vocabulary, std::uint64_t fingerprint = 0);
  TokenFileWriter(TokenFileWriter&&) noexcept;
  ~TokenFileWriter();

  /// dsx-E650 for an id outside the vocabulary.
  void append(std::span<const int> ids);
  /// dsx-E652 if there was no id.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Bytes of text done and in all.
using TokeniseProgress = std::function<void(Extent done, Extent whole)>;

struct Tokenised {
  TokenFile tokens;
  Extent invalid_bytes = 0;  ///< bytes of the texts that aren't UTF-8; utf8_warning() says it in a sentence
  bool from_cache = false;
};

/// The ids of all files (folders: text_files()), each followed by the end of text if the tokenizer has one, as a token file in `folder`.
/// Its name is made of hashes of the texts and the tokenizer: what was tokenised once is only opened.
Tokenised tokenise_cached(const std::vector<std::filesystem::path>& files, const Tokenizer& tokenizer, const std::filesystem::path& folder,
                          const TokeniseProgress& progress = {});

/// The same for a text in memory.
Tokenised tokenise_cached(std::string_view text, const Tokenizer& tokenizer, const std::filesystem::path& folder,
                          const TokeniseProgress& progress = {});

}  // namespace dsx
