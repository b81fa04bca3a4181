// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a language model is trained on and judged by: text files, a folder or a token file, made into token files once.
///
///     const Corpus corpus = open_corpus({.data = {"book.txt"}, .vocabulary = 4096});   // trains a tokenizer where none is named
///     corpus.training.size(), corpus.validation->size(), corpus.tokenizer->decode(ids);
#pragma once

#include <dsx/data/token_file.hpp>

#include <functional>
#include <optional>

namespace dsx {

/// Where token files and tokenizers of texts are kept: below XDG_CACHE_HOME or HOME, else below the system's temporary folder.
std::filesystem::path default_cache();

struct CorpusOptions {
  std::vector<std::filesystem::path> data = {};  ///< texts and folders of them, or one token file
  std::filesystem::path tokenizer = {};          ///< a folder or file; none: a byte pair encoding is trained on the training text
  Extent vocabulary = 4096;                      ///< of a trained one
  std::filesystem::path cache = default_cache();
  BlockSplit split = {};                         ///< what of a text is held out
  std::function<void(std::string_view)> say = {};  ///< warnings, and what takes long
};

struct Corpus {
  TokenFile training;
  std::optional<TokenFile> validation = {};  ///< none for a token file, and for a text too short to be cut
  std::optional<Tokenizer> tokenizer = {};   ///< none for a token file where none is named

  Extent vocabulary() const { return tokenizer ? tokenizer->size() : training.vocabulary(); }
  /// What tells it from another: how many tokens to train on, and a checksum over them and their tokenizer.
  std::string identity() const;
};

/// dsx-E652 if there is nothing to train on, dsx-E649 if a token file was made by another tokenizer than the named one, dsx-E715 if
/// one stands among texts.
Corpus open_corpus(const CorpusOptions& options);

/// The mean cross entropy, in nats, of `judged` under the frequencies of tokens in `training` (one added to each): what a model that
/// knows nothing of context reaches.
double unigram_loss(const TokenFile& training, const TokenFile& judged);

}  // namespace dsx
