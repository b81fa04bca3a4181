// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Counts words once, then merges the pair that occurs most, again and again; only words that hold the pair are touched.
///
///     const auto tokenizer = dsx::train_bpe("low lower lowest", {.vocabulary = 259});   // 256 bytes, "ow", "low", <|endoftext|>
#include <dsx/data/bpe_trainer.hpp>

#include "word_splitter.hpp"

#include <algorithm>
#include <queue>
#include <unordered_map>
#include <unordered_set>

namespace dsx {

namespace {

/// Words and how often each occurs, in the order of their first occurrence.
class WordCounts {
 public:
  struct Word {
    std::vector<int> ids;
    std::uint64_t count = 0;
  };

  void add(std::string_view text) {
    for (Extent at = 0; at < text.size();) {
      const Extent valid = utf8_end(text, at);
      splitter_.split(text.substr(at, valid - at), scratch_, [&](std::string_view word) { add_word(word); });
      at = valid;
      while (at < text.size() && utf8_length(text, at) == 0) ++at;  // a byte alone makes no pair
    }
  }

  const std::vector<std::string>& spellings() const { return spellings_; }
  const std::vector<std::uint64_t>& counts() const { return counts_; }

 private:
  /// A longer word (a run of dashes, base64) is counted in parts, or each merge in it would cost its whole length.
  static constexpr Extent longest = 256;

  void add_word(std::string_view word) {
    for (; word.size() > longest; word.remove_prefix(longest)) add_word(word.substr(0, longest));
    const auto [place, is_new] = index_.try_emplace(std::string{word}, spellings_.size());
    if (is_new) spellings_.emplace_back(word), counts_.push_back(0);
    ++counts_[place->second];
  }

  WordSplitter splitter_{gpt2_pattern, true};
  WordSplitter::Scratch scratch_;
  std::unordered_map<std::string, Extent> index_;
  std::vector<std::string> spellings_;
  std::vector<std::uint64_t> counts_;
};

/// In GPT-2's order: the printable characters of Latin-1, then the other bytes.
std::vector<std::string> all_bytes() {
  std::vector<std::string> printable, others;
  for (int b = 0; b < 256; ++b) ((b >= 33 && b <= 126) || (b >= 161 && b != 173) ? printable : others).emplace_back(1, char(b));
  printable.insert(printable.end(), others.begin(), others.end());
  return printable;
}

class Merger {
 public:
  Merger(const WordCounts& words, TokenizerParts& parts) : counts_{words.counts()}, parts_{parts} {
    std::array<int, 256> id_of_byte{};
    for (Extent id = 0; id < parts_.tokens.size(); ++id) id_of_byte[std::uint8_t(parts_.tokens[id][0])] = int(id);
    for (const std::string& spelling : words.spellings()) {
      std::vector<int>& ids = words_.emplace_back();
      for (const char byte : spelling) ids.push_back(id_of_byte[std::uint8_t(byte)]);
    }
    for (std::uint32_t w = 0; w < words_.size(); ++w)
      for (Extent i = 0; i + 1 < words_[w].size(); ++i) count(words_[w][i], words_[w][i + 1], std::int64_t(counts_[w]), w);
    for (const auto& [pair, state] : pairs_) queue_.push({state.count, pair});
  }

  /// Merges the most frequent pair; false if none occurs twice.
  bool step() {
    while (!queue_.empty()) {
      const auto [noted, pair] = queue_.top();
      queue_.pop();
      const auto found = pairs_.find(pair);
      if (found == pairs_.end()) continue;
      if (found->second.count != noted) {  // others took some of its places; whoever added to it queued it again
        if (found->second.count < noted && found->second.count > 0) queue_.push({found->second.count, pair});
        continue;
      }
      if (noted < 2) return false;
      // "a" + "bc" may be there already as "ab" + "c"; one spelling needs no second id.
      if (!spellings_.insert(left_of(pair) + right_of(pair)).second) continue;
      merge(pair, std::move(found->second.words));
      return true;
    }
    return false;
  }

 private:
  struct PairState {
    std::int64_t count = 0;
    std::vector<std::uint32_t> words;  // where it was seen: a superset of where it is
  };
  struct Queued {
    std::int64_t count;
    std::uint64_t pair;
    /// The highest count first, then the lower ids: no two differ by chance.
    bool operator<(const Queued& other) const { return count != other.count ? count < other.count : pair > other.pair; }
  };

  static std::uint64_t key(int left, int right) { return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right); }
  const std::string& left_of(std::uint64_t pair) const { return parts_.tokens[Extent(pair >> 32)]; }
  const std::string& right_of(std::uint64_t pair) const { return parts_.tokens[Extent(std::uint32_t(pair))]; }

  void count(int left, int right, std::int64_t by, std::uint32_t word) {
    PairState& state = pairs_[key(left, right)];
    state.count += by;
    if (by > 0 && (state.words.empty() || state.words.back() != word)) state.words.push_back(word);
  }

  void merge(std::uint64_t pair, std::vector<std::uint32_t> places) {
    const int left = int(pair >> 32), right = int(std::uint32_t(pair)), product = int(parts_.tokens.size());
    parts_.merges.push_back({left, right});
    parts_.tokens.push_back(left_of(pair) + right_of(pair));
    grown_.clear();
    for (const std::uint32_t w : places) {
      std::vector<int>& ids = words_[w];
      const auto by = std::int64_t(counts_[w]);
      const auto change = [&](int a, int b, std::int64_t sign) {
        count(a, b, sign * by, w);
        if (sign > 0) grown_.push_back(key(a, b));
      };
      Extent kept = 0;
      for (Extent i = 0; i < ids.size(); ++kept) {
        if (i + 1 == ids.size() || ids[i] != left || ids[i + 1] != right) {
          ids[kept] = ids[i++];
          continue;
        }
        // Pairs with the left neighbour, which may itself be a product of this merge, and with the right one.
        if (kept > 0) change(ids[kept - 1], left, -1), change(ids[kept - 1], product, 1);
        if (i + 2 < ids.size()) change(right, ids[i + 2], -1), change(product, ids[i + 2], 1);
        ids[kept] = product;
        i += 2;
      }
      ids.resize(kept);
    }
    pairs_.erase(pair);
    std::sort(grown_.begin(), grown_.end());
    grown_.erase(std::unique(grown_.begin(), grown_.end()), grown_.end());
    for (const std::uint64_t grown : grown_)
      if (const auto found = pairs_.find(grown); found != pairs_.end() && found->second.count > 0) queue_.push({found->second.count, grown});
  }

  const std::vector<std::uint64_t>& counts_;
  TokenizerParts& parts_;
  std::vector<std::vector<int>> words_;
  std::unordered_map<std::uint64_t, PairState> pairs_;
  std::priority_queue<Queued> queue_;
  std::vector<std::uint64_t> grown_;
  std::unordered_set<std::string> spellings_;
};

Tokenizer train(const WordCounts& words, const BpeOptions& options) {
  const Extent fixed = 256 + options.special.size();
  TokenizerParts parts{.tokens = all_bytes(), .splits = {{std::string{gpt2_pattern}}}};
  const Extent wanted = options.vocabulary - fixed;
  Merger merger{words, parts};
  while (parts.merges.size() < wanted && merger.step())
    if (options.progress && parts.merges.size() % 64 == 0) options.progress(parts.merges.size(), wanted);
  if (options.progress) options.progress(parts.merges.size(), wanted);
  for (const std::string& special : options.special) parts.added.push_back({int(parts.tokens.size() + parts.added.size()), special, true});
  return Tokenizer{std::move(parts)};
}

/// Before any text is counted.
void check(const BpeOptions& options) {
  if (const Extent fixed = 256 + options.special.size(); options.vocabulary < fixed)
    fail<646>("a vocabulary of ", options.vocabulary, " can't hold the 256 bytes and ", options.special.size(), " special tokens: at least ", fixed);
}

}  // namespace

Tokenizer train_bpe(std::string_view text, const BpeOptions& options) {
  check(options);
  WordCounts words;
  words.add(text);
  return train(words, options);
}

Tokenizer train_bpe(const std::function<std::optional<std::string>()>& next, const BpeOptions& options) {
  check(options);
  WordCounts words;
  while (const auto text = next()) words.add(*text);
  return train(words, options);
}

}  // namespace dsx
