// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Opens training data.
#include <dsx/core/random.hpp>
#include <dsx/data/bpe_trainer.hpp>
#include <dsx/data/corpus.hpp>
#include <dsx/io/atomic_file.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace dsx {
namespace fs = std::filesystem;
namespace {

bool is_token_file(const fs::path& file) {
  if (!fs::is_regular_file(file)) return false;
  char head[8]{};
  std::ifstream{file, std::ios::binary}.read(head, sizeof head);
  return std::string_view{head, sizeof head} == "dsxtoken";
}

Tokenizer trained_once(const std::string& text, const CorpusOptions& options) {
  char name[80];
  std::snprintf(name, sizeof name, "tokenizer-%016llx-%zu.json", static_cast<unsigned long long>(hash_of(text)), options.vocabulary);
  const fs::path file = options.cache / name;
  if (fs::exists(file)) return Tokenizer::from_file(file);
  if (options.say) options.say(concat("training a tokenizer of ", options.vocabulary, " tokens on ", text.size(), " bytes of text"));
  make_folders(options.cache);
  const Tokenizer tokenizer = train_bpe(text, {.vocabulary = options.vocabulary});
  tokenizer.save(file);
  return tokenizer;
}

}  // namespace

fs::path default_cache() {
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (xdg && *xdg) return fs::path{xdg} / "dsx";
  if (home && *home) return fs::path{home} / ".cache" / "dsx";
  return fs::temp_directory_path() / "dsx_cache";
}

std::string Corpus::identity() const {
  char sum[17];
  std::snprintf(sum, sizeof sum, "%016llx", static_cast<unsigned long long>(training.checksum()));
  return concat(training.size(), " tokens with the checksum ", sum);
}

Corpus open_corpus(const CorpusOptions& options) {
  std::optional<Tokenizer> tokenizer;
  if (!options.tokenizer.empty()) tokenizer = Tokenizer::load(options.tokenizer);
  if (options.data.size() == 1 && is_token_file(options.data.front())) {
    const TokenFileOptions asked{.vocabulary = tokenizer ? tokenizer->size() : 0, .fingerprint = tokenizer ? tokenizer->fingerprint() : 0};
    return {.training = TokenFile{options.data.front(), asked}, .tokenizer = tokenizer};
  }
  for (const fs::path& file : options.data)
    if (is_token_file(file)) fail<715>(file, " is a token file among ", options.data.size(), " files and folders of data; it has to be given alone");
  const Texts texts = read_texts(options.data);
  if (texts.invalid_bytes > 0 && options.say) options.say(texts.warning());
  const HeldOut held = split_blocks(texts.text, options.split);
  if (!tokenizer) tokenizer = trained_once(held.training, options);
  Corpus corpus{.training = tokenise_cached(held.training, *tokenizer, options.cache).tokens, .tokenizer = tokenizer};
  if (!held.validation.empty()) corpus.validation = tokenise_cached(held.validation, *tokenizer, options.cache).tokens;
  return corpus;
}

double unigram_loss(const TokenFile& training, const TokenFile& judged) {
  std::vector<double> counts(std::max(training.vocabulary(), judged.vocabulary()), 1.0);
  for (Extent i = 0; i < training.size(); ++i) counts[std::size_t(training[i])] += 1;
  const double whole = double(training.size() + counts.size());
  double loss = 0;
  for (Extent i = 0; i < judged.size(); ++i) loss -= std::log(counts[std::size_t(judged[i])] / whole);
  return loss / double(judged.size());
}

}  // namespace dsx
