// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Byte-level byte pair encoding, as GPT-2, Llama 3 and Qwen use it: text to ids and back, without loss for any bytes.
///
///     const auto tokenizer = dsx::Tokenizer::load("gpt2/");     // tokenizer.json, or encoder.json and vocab.bpe
///     std::vector<int> ids = tokenizer.encode("Hello world");   // 15496, 995
///     std::string text = tokenizer.decode(ids);
///     ids = tokenizer.encode("a<|endoftext|>", {.special = dsx::Special::allowed});   // 64, 50256
#pragma once

#include <dsx/core/error.hpp>
#include <dsx/core/shape.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dsx {

/// What the names of special tokens, such as <|endoftext|>, are when they occur in a text.
enum class Special : std::uint8_t { as_text, allowed };

struct EncodeOptions {
  Special special = Special::as_text;
  bool framed = false;  ///< with the tokens that the file's template puts before and after a text (Llama's begin of text)
  bool begun = false;   ///< with those before it alone: a prompt
};

/// How GPT-2 cuts text into words, each of which is encoded by itself.
inline constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// What a tokenizer is made of. Bytes are raw here; only files spell them in GPT-2's alphabet.
struct TokenizerParts {
  /// Two ids whose bytes, one after the other, are those of a third.
  struct Merge {
    int left = 0, right = 0;
  };
  /// Found in a text before it is cut into words; a special one only where the caller allows it.
  struct Added {
    int id = 0;
    std::string text;
    bool special = true;
  };
  /// A regular expression whose matches are words; what lies between two matches is a word too, or is dropped.
  struct Split {
    std::string pattern;
    bool keep_between = true;
  };

  std::vector<std::string> tokens = {};  ///< by id; empty where no word yields the id
  std::vector<Merge> merges = {};        ///< the earlier, the sooner applied
  std::vector<Added> added = {};
  std::vector<Split> splits = {};        ///< one after the other, each on the words of the one before
  bool ignore_merges = false;            ///< a word that is a token is that token, whatever merges say
  std::vector<int> before = {}, after = {};  ///< what framing adds
};

/// Immutable and safe to use from many threads; a copy costs a reference count.
class Tokenizer {
 public:
  /// Receives the next ids, and how many bytes of the text they and those before them stand for.
  using Sink = std::function<void(std::span<const int> ids, Extent bytes_done)>;

  explicit Tokenizer(TokenizerParts parts);

  /// A folder with tokenizer.json, or with encoder.json or vocab.json and vocab.bpe or merges.txt; or a tokenizer.json of any name.
  static Tokenizer load(const std::filesystem::path& path);
  static Tokenizer from_gpt2(const std::filesystem::path& encoder_json, const std::filesystem::path& vocab_bpe);
  static Tokenizer from_file(const std::filesystem::path& tokenizer_json);

  /// The same from the files' contents; `name` leads the error messages.
  static Tokenizer parse_gpt2(std::string_view encoder_json, std::string_view vocab_bpe, std::string_view name = "encoder.json, vocab.bpe");
  static Tokenizer parse(std::string_view tokenizer_json, std::string_view name = "tokenizer.json");

  /// Bytes that aren't UTF-8 are encoded too, apart from the words around them (data/text.hpp counts them).
  std::vector<int> encode(std::string_view text, EncodeOptions options = {}) const;
  /// For texts whose ids had better not all be in memory.
  void encode(std::string_view text, EncodeOptions options, const Sink& sink) const;

  /// The bytes; dsx-E306 for an id that no token has.
  std::string decode(std::span<const int> ids) const;
  std::string decode(int id) const { return std::string{token(id)}; }

  /// One more than the highest id.
  Extent size() const;
  /// A token's bytes.
  std::string_view token(int id) const;
  std::optional<int> id(std::string_view token) const;
  bool is_special(int id) const;
  /// <|endoftext|>, <|end_of_text|>, <|eot_id|>, <|im_end|> or </s>: the first of them that is an added token.
  std::optional<int> end_of_text() const;

  const TokenizerParts& parts() const;
  /// Tokenizers that encode alike share it: the key of cached token files.
  std::uint64_t fingerprint() const;

  /// A tokenizer.json that Hugging Face's tokenizers load. Written under a temporary name, synced, renamed.
  void save(const std::filesystem::path& tokenizer_json) const;
  std::string to_json() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

/// Text from ids that arrive one by one: bytes are held back until their UTF-8 character is complete.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer) : tokenizer_{std::move(tokenizer)} {}

  /// What can be shown now; may be empty.
  std::string push(int id);
  /// What is still held back: a character that was never completed.
  std::string finish() { return std::exchange(held_, {}); }

 private:
  Tokenizer tokenizer_;
  std::string held_;
};

}  // namespace dsx
