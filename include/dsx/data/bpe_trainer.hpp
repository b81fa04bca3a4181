// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Trains a byte-level byte pair encoding on text, with GPT-2's words. The same text gives the same tokenizer, byte for byte.
///
///     const auto tokenizer = dsx::train_bpe(text, {.vocabulary = 4096});
///     tokenizer.save("tokenizer.json");
///     tokenizer.size();   // 4096, or fewer if no pair occurs twice any more
#pragma once

#include <dsx/data/tokenizer.hpp>

namespace dsx {

struct BpeOptions {
  Extent vocabulary = 4096;                          ///< bytes, merges and special tokens together
  std::vector<std::string> special{"<|endoftext|>"};  ///< take the highest ids
  /// Called now and then with the merges made so far and the merges wanted.
  std::function<void(Extent merges, Extent wanted)> progress = {};
};

/// Ids: 256 bytes in GPT-2's order, then merges by falling count (a tie goes to the pair with the lower ids), then special tokens.
/// dsx-E646 if the vocabulary can't hold the bytes and the special tokens.
Tokenizer train_bpe(std::string_view text, const BpeOptions& options = {});

/// Texts that aren't in memory at once: `next` gives one after the other, nothing at the end.
Tokenizer train_bpe(const std::function<std::optional<std::string>()>& next, const BpeOptions& options = {});

}  // namespace dsx
