// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Byte-level BPE: reading and writing tokenizer files, and merging without a quadratic worst case.
///
///     const auto tokenizer = dsx::Tokenizer::parse(R"({"model": {"type": "Unigram"}})");
///     // dsx-E642: tokenizer.json: the model "Unigram" isn't read, only byte-level BPE
#include <dsx/core/random.hpp>
#include <dsx/data/tokenizer.hpp>
#include <dsx/io/atomic_file.hpp>
#include <dsx/io/json.hpp>

#include "word_splitter.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <queue>
#include <unordered_map>
#include <unordered_set>

namespace dsx {

namespace fs = std::filesystem;

namespace {

// ---- GPT-2's alphabet: how files spell bytes ----

/// Printable Latin-1 characters stand for their byte, the others for U+0100 and on, in the bytes' order.
constexpr std::array<char32_t, 256> letter_of_byte = [] {
  std::array<char32_t, 256> letters{};
  char32_t next = 256;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
    letters[b] = printable ? char32_t(b) : next++;
  }
  return letters;
}();

std::string spell(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    const char32_t letter = letter_of_byte[std::uint8_t(byte)];
    if (letter < 0x80)
      text += char(letter);
    else
      text += char(0xC0 | (letter >> 6)), text += char(0x80 | (letter & 0x3F));
  }
  return text;
}

/// Nothing if the text has a letter outside the alphabet.
std::optional<std::string> unspell(std::string_view text) {
  static const auto byte_of_letter = [] {
    std::array<int, 512> bytes;
    bytes.fill(-1);
    for (int b = 0; b < 256; ++b) bytes[letter_of_byte[std::size_t(b)]] = b;
    return bytes;
  }();
  std::string bytes;
  for (Extent at = 0, length = 0; at < text.size(); at += length) {
    length = utf8_length(text, at);
    if (length != 1 && length != 2) return {};
    const auto letter = length == 1 ? unsigned(text[at]) : (unsigned(text[at]) & 0x1F) << 6 | (unsigned(text[at + 1]) & 0x3F);
    if (letter >= byte_of_letter.size() || byte_of_letter[letter] < 0) return {};
    bytes += char(byte_of_letter[letter]);
  }
  return bytes;
}

std::string in_quotes(std::string_view text) { return concat('"', text.substr(0, 60), text.size() > 60 ? "...\"" : "\""); }

/// What a pair of ids becomes: a hash table with open addresses, half empty.
class MergeTable {
 public:
  struct Entry {
    std::uint64_t pair = none;
    int rank = 0, product = 0;
  };

  explicit MergeTable(Extent merges) : entries_(std::bit_ceil(2 * merges + 2)), shift_{64 - std::countr_zero(entries_.size())} {}

  /// A pair's later merge replaces an earlier one.
  void put(int left, int right, int rank, int product) { entries_[place(key(left, right))] = {key(left, right), rank, product}; }

  const Entry* find(int left, int right) const {
    const Entry& entry = entries_[place(key(left, right))];
    return entry.pair == none ? nullptr : &entry;
  }

 private:
  static constexpr std::uint64_t none = ~std::uint64_t(0);
  static std::uint64_t key(int left, int right) { return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right); }
  Extent place(std::uint64_t pair) const {
    Extent i = pair * 0x9E3779B97F4A7C15ULL >> shift_;
    while (entries_[i].pair != none && entries_[i].pair != pair) i = (i + 1) & (entries_.size() - 1);
    return i;
  }

  std::vector<Entry> entries_;
  int shift_;
};

/// Ids index vectors, so that a single absurd one must not cost gigabytes.
void check_id(Extent id, Extent tokens) {
  if (id > 4 * tokens + 100'000) fail<643>("the id ", id, " in a vocabulary of ", tokens, " tokens");
}

}  // namespace

// ---- what a tokenizer looks things up in ----

struct Tokenizer::State {
  explicit State(TokenizerParts given);

  class Encoder;

  TokenizerParts parts;
  std::unordered_map<std::string_view, int> by_bytes;
  std::array<int, 256> byte_ids{};
  MergeTable merges;
  std::vector<WordSplitter> splitters;
  std::unordered_map<int, const TokenizerParts::Added*> added;
  std::array<std::vector<const TokenizerParts::Added*>, 256> added_by_first_byte;  // the longest first
  Extent size = 0;
  std::uint64_t fingerprint = 0;
};

Tokenizer::State::State(TokenizerParts given) : parts{std::move(given)}, merges{parts.merges.size()} {
  size = parts.tokens.size();
  for (Extent id = 0; id < parts.tokens.size(); ++id) {
    const std::string& token = parts.tokens[id];
    if (token.empty()) continue;
    const auto [other, is_new] = by_bytes.emplace(token, int(id));
    if (!is_new) fail<643>("the ids ", other->second, " and ", id, " stand for the same bytes, spelled ", in_quotes(spell(token)));
  }
  for (int b = 0; b < 256; ++b) {
    const char byte = char(b);
    const auto found = by_bytes.find(std::string_view{&byte, 1});
    if (found == by_bytes.end())
      fail<643>("no token stands for the byte ", b, ", spelled ", in_quotes(spell({&byte, 1})), ": not a byte-level vocabulary");
    byte_ids[std::size_t(b)] = found->second;
  }

  const auto token_at = [&](int id) -> const std::string& {
    if (id < 0 || Extent(id) >= parts.tokens.size() || parts.tokens[Extent(id)].empty())
      fail<644>("a merge names the id ", id, ", but the vocabulary of ", parts.tokens.size(), " has no such token");
    return parts.tokens[Extent(id)];
  };
  for (Extent rank = 0; rank < parts.merges.size(); ++rank) {
    const auto [left, right] = parts.merges[rank];
    const std::string product = token_at(left) + token_at(right);
    const auto found = by_bytes.find(product);
    if (found == by_bytes.end())
      fail<644>("merge ", rank, " of ", in_quotes(spell(token_at(left))), " and ", in_quotes(spell(token_at(right))), " makes ",
                in_quotes(spell(product)), ", which the vocabulary of ", by_bytes.size(), " tokens lacks");
    merges.put(left, right, int(rank), found->second);
  }

  std::unordered_set<std::string_view> texts;
  for (const TokenizerParts::Added& token : parts.added) {
    if (token.text.empty()) fail<643>("the added token ", token.id, " is empty");
    if (token.id < 0) fail<643>("the added token ", in_quotes(token.text), " has the id ", token.id);
    check_id(Extent(token.id), parts.tokens.size());
    if (!texts.insert(token.text).second || !added.emplace(token.id, &token).second)
      fail<643>("the added token ", token.id, ", ", in_quotes(token.text), ", is there twice");
    const std::string* const word = Extent(token.id) < parts.tokens.size() ? &parts.tokens[Extent(token.id)] : nullptr;
    if (word && !word->empty() && *word != token.text)
      fail<643>("the id ", token.id, " stands for the added token ", in_quotes(token.text), " and for ", in_quotes(spell(*word)));
    size = std::max(size, Extent(token.id) + 1);
    added_by_first_byte[std::uint8_t(token.text[0])].push_back(&token);
  }
  for (auto& tokens : added_by_first_byte)
    std::ranges::sort(tokens, std::greater{}, [](const auto* token) { return token->text.size(); });

  for (const auto* frame : {&parts.before, &parts.after})
    for (const int id : *frame)
      if (id < 0 || Extent(id) >= size) fail<643>("the template adds the id ", id, " to a vocabulary of ", size);

  for (const auto& [pattern, keep_between] : parts.splits) splitters.emplace_back(pattern, keep_between);

  const auto take = [&](const auto& text) { fingerprint = hash_of(text, fingerprint * 0x9E3779B97F4A7C15ULL + 1); };
  // An added token is found before words are merged, whether the vocabulary spells it once more or not.
  for (Extent id = 0; id < parts.tokens.size(); ++id)
    if (!parts.tokens[id].empty() && (parts.ignore_merges || !added.contains(int(id)))) take(concat(id, ' ', parts.tokens[id]));
  for (const auto& [left, right] : parts.merges) fingerprint = (fingerprint ^ (std::uint64_t(left) << 32 | unsigned(right))) * 0x100000001b3ULL;
  for (const auto& token : parts.added) take(concat(token.id, token.special ? " special " : " plain ", token.text));
  for (const auto& split : parts.splits) take(concat(int(split.keep_between), split.pattern));
  take(concat(int(parts.ignore_merges)));
}

// ---- text to ids ----

/// One call of encode(): its scratch space and the words it has seen.
class Tokenizer::State::Encoder {
 public:
  Encoder(const State& state, std::string_view text, const Sink& sink) : state_{state}, text_{text}, sink_{sink} {}

  void run(EncodeOptions options) {
    if (options.framed || options.begun) put(state_.parts.before);
    for (Extent at = 0; at < text_.size();) {
      const auto [begin, token] = next_added(at, options.special == Special::allowed);
      plain(text_.substr(at, begin - at));
      at = begin;
      if (!token) continue;
      put({&token->id, 1});
      at += token->text.size();
    }
    if (options.framed) put(state_.parts.after);
    sink_(ids_, text_.size());
  }

 private:
  /// Longer words are merged by rank_buckets(); shorter ones are worth remembering.
  static constexpr Extent short_word = 128, remembered = 1 << 16;

  struct Found {
    Extent begin;
    const TokenizerParts::Added* token;
  };

  Found next_added(Extent at, bool special) const {
    if (!state_.parts.added.empty())
      for (; at < text_.size(); ++at)
        for (const TokenizerParts::Added* token : state_.added_by_first_byte[std::uint8_t(text_[at])])
          if ((special || !token->special) && text_.substr(at, token->text.size()) == token->text) return {at, token};
    return {text_.size(), nullptr};
  }

  void plain(std::string_view text) {
    for (Extent at = 0; at < text.size();) {
      const Extent valid = utf8_end(text, at);
      words(text.substr(at, valid - at), 0);
      Extent invalid = valid;
      while (invalid < text.size() && utf8_length(text, invalid) == 0) ++invalid;
      if (invalid > valid) word(text.substr(valid, invalid - valid));
      at = invalid;
    }
  }

  void words(std::string_view text, Extent level) {
    if (level == state_.splitters.size()) {
      if (!text.empty()) word(text);
    } else {
      state_.splitters[level].split(text, scratch_, [&](std::string_view part) { words(part, level + 1); });
    }
  }

  void word(std::string_view word) {
    // Positions are 32 bits wide; beyond 1 GiB without a break a word is cut.
    constexpr Extent longest = 1_GiB;
    for (; word.size() > longest; word.remove_prefix(longest)) merge_long(word.substr(0, longest));
    if (word.size() == 1)
      ids_.push_back(state_.byte_ids[std::uint8_t(word[0])]);
    else if (const auto whole = state_.parts.ignore_merges ? state_.by_bytes.find(word) : state_.by_bytes.end(); whole != state_.by_bytes.end())
      ids_.push_back(whole->second);
    else if (word.size() > short_word)
      merge_long(word);
    else
      merge_short(word);
    if (ids_.size() >= 1 << 15) sink_(ids_, Extent(word.data() + word.size() - text_.data())), ids_.clear();
  }

  void put(std::span<const int> ids) { ids_.insert(ids_.end(), ids.begin(), ids.end()); }

  void merge_short(std::string_view word) {
    if (const auto seen = seen_.find(word); seen != seen_.end())
      return put(std::span{seen_ids_}.subspan(seen->second.begin, seen->second.size()));
    std::array<int, short_word> ids;
    std::array<const MergeTable::Entry*, short_word> pairs;
    Extent count = word.size();
    for (Extent i = 0; i < count; ++i) ids[i] = state_.byte_ids[std::uint8_t(word[i])];
    for (Extent i = 0; i + 1 < count; ++i) pairs[i] = state_.merges.find(ids[i], ids[i + 1]);
    while (count > 1) {
      const MergeTable::Entry* best = nullptr;
      Extent at = 0;
      for (Extent i = 0; i + 1 < count; ++i)
        if (pairs[i] && (!best || pairs[i]->rank < best->rank)) best = pairs[i], at = i;
      if (!best) break;
      ids[at] = best->product;
      --count;
      for (Extent i = at + 1; i < count; ++i) ids[i] = ids[i + 1];
      for (Extent i = at + 1; i + 1 < count; ++i) pairs[i] = pairs[i + 1];
      if (at > 0) pairs[at - 1] = state_.merges.find(ids[at - 1], ids[at]);
      if (at + 1 < count) pairs[at] = state_.merges.find(ids[at], ids[at + 1]);
    }
    const std::span<const int> result{ids.data(), count};
    if (seen_.size() >= remembered) seen_.clear(), seen_ids_.clear();
    seen_.emplace(word, Range{seen_ids_.size(), seen_ids_.size() + count});
    seen_ids_.insert(seen_ids_.end(), result.begin(), result.end());
    put(result);
  }

  /// A linked list of ids, and for each rank the places where its pair stands: the lowest rank is merged everywhere at once, left to
  /// right. Each place is looked at once for each merge beside it, so a word of n bytes takes about n steps.
  void merge_long(std::string_view word) {
    constexpr std::uint32_t end = ~0U;
    constexpr int gone = -1;
    struct Node {
      int id;
      std::uint32_t before, after;
    };
    std::vector<Node> nodes(word.size());
    std::unordered_map<int, std::vector<std::uint32_t>> places;
    std::priority_queue<int, std::vector<int>, std::greater<>> ranks;
    const auto merge_at = [&](std::uint32_t at) {
      return nodes[at].after == end ? nullptr : state_.merges.find(nodes[at].id, nodes[nodes[at].after].id);
    };
    /// Whether what was noted has a lower rank than `current`.
    const auto note = [&](std::uint32_t at, int current) {
      const MergeTable::Entry* const merge = merge_at(at);
      if (!merge) return false;
      std::vector<std::uint32_t>& of_rank = places[merge->rank];
      if (of_rank.empty()) ranks.push(merge->rank);
      of_rank.push_back(at);
      return merge->rank < current;
    };
    for (std::uint32_t i = 0; i < nodes.size(); ++i)
      nodes[i] = {state_.byte_ids[std::uint8_t(word[i])], i == 0 ? end : i - 1, i + 1 == nodes.size() ? end : i + 1};
    for (std::uint32_t i = 0; i < nodes.size(); ++i) note(i, 0);

    while (!ranks.empty()) {
      const int rank = ranks.top();
      ranks.pop();
      std::vector<std::uint32_t> now = std::exchange(places[rank], {});
      if (!std::ranges::is_sorted(now)) std::ranges::sort(now);
      for (Extent i = 0; i < now.size(); ++i) {
        Node& node = nodes[now[i]];
        const MergeTable::Entry* const merge = node.id == gone ? nullptr : merge_at(now[i]);
        if (!merge || merge->rank != rank) continue;
        Node& right = nodes[node.after];
        node.id = merge->product, right.id = gone;
        node.after = right.after;
        if (node.after != end) nodes[node.after].before = now[i];
        const bool lower_left = node.before != end && note(node.before, rank), lower_right = note(now[i], rank);
        if (!lower_left && !lower_right) continue;
        // A vocabulary that no trainer made: the product starts an earlier merge, which comes first.
        std::vector<std::uint32_t>& rest = places[rank];
        if (rest.empty()) ranks.push(rank);
        rest.insert(rest.end(), now.begin() + std::ptrdiff_t(i) + 1, now.end());
        break;
      }
    }
    for (std::uint32_t at = 0; at != end; at = nodes[at].after) ids_.push_back(nodes[at].id);
  }

  const State& state_;
  std::string_view text_;
  const Sink& sink_;
  std::vector<int> ids_;
  WordSplitter::Scratch scratch_;
  std::unordered_map<std::string_view, Range> seen_;  // keys lie in text_
  std::vector<int> seen_ids_;
};

void Tokenizer::encode(std::string_view text, EncodeOptions options, const Sink& sink) const { State::Encoder{*state_, text, sink}.run(options); }

std::vector<int> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::vector<int> ids;
  encode(text, options, [&](std::span<const int> more, Extent) { ids.insert(ids.end(), more.begin(), more.end()); });
  return ids;
}

// ---- ids to text ----

std::string Tokenizer::decode(std::span<const int> ids) const {
  std::string text;
  for (const int id : ids) text += token(id);
  return text;
}

Extent Tokenizer::size() const { return state_->size; }

std::string_view Tokenizer::token(int id) const {
  if (const auto added = state_->added.find(id); added != state_->added.end()) return added->second->text;
  const auto& tokens = state_->parts.tokens;
  if (id < 0 || Extent(id) >= tokens.size() || tokens[Extent(id)].empty())
    fail<306>("the id ", id, " stands for no token of this vocabulary of ", size());
  return tokens[Extent(id)];
}

std::optional<int> Tokenizer::id(std::string_view token) const {
  for (const auto& added : state_->parts.added)
    if (added.text == token) return added.id;
  const auto found = state_->by_bytes.find(token);
  return found == state_->by_bytes.end() ? std::nullopt : std::optional{found->second};
}

bool Tokenizer::is_special(int id) const {
  const auto found = state_->added.find(id);
  return found != state_->added.end() && found->second->special;
}

std::optional<int> Tokenizer::end_of_text() const {
  for (const std::string_view name : {"<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "</s>"})
    for (const auto& added : state_->parts.added)
      if (added.text == name) return added.id;
  return {};
}

const TokenizerParts& Tokenizer::parts() const { return state_->parts; }
std::uint64_t Tokenizer::fingerprint() const { return state_->fingerprint; }

std::string StreamDecoder::push(int id) {
  held_ += tokenizer_.token(id);
  // What may still become a character is at most 3 bytes long and begins with the last leading byte.
  Extent keep = held_.size();
  for (Extent back = 1; back <= std::min<Extent>(3, held_.size()); ++back) {
    const Extent at = held_.size() - back;
    const auto lead = std::uint8_t(held_[at]);
    if ((lead & 0xC0) == 0x80) continue;
    const Extent length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 1;
    // Completed by the lowest and by the highest continuation: if neither is a character, nothing will make it one.
    const auto may_become = [&](char with) { return utf8_length(held_.substr(at) + std::string(length - back, with), 0) != 0; };
    if (lead < 0xF5 && length > back && (may_become('\x80') || may_become('\xBF'))) keep = at;
    break;
  }
  std::string ready = held_.substr(0, keep);
  held_.erase(0, keep);
  return ready;
}

// ---- files ----

namespace {

/// A vocabulary as files have it: spellings to ids.
struct Spellings {
  std::unordered_map<std::string, int> ids;
  Extent size = 0;

  Spellings(const Json& vocabulary) {
    for (const auto& [spelling, value] : vocabulary.members()) {
      const Extent id = value.extent();
      check_id(id, vocabulary.size());
      if (spelling.empty()) fail<643>(vocabulary.where(), ": the id ", id, " stands for an empty token");
      ids.emplace(spelling, int(id));
      size = std::max(size, id + 1);
    }
  }

  /// Raw bytes by id. Spellings outside the alphabet are those of added tokens, or the vocabulary isn't byte-level.
  std::vector<std::string> tokens(const std::vector<TokenizerParts::Added>& added, std::string_view name) const {
    std::vector<std::string> tokens(size);
    std::vector<const std::string*> taken(size);
    std::unordered_map<int, std::string_view> added_texts;
    for (const auto& token : added) added_texts.emplace(token.id, token.text);
    for (const auto& [spelling, id] : ids) {
      if (const std::string* other = std::exchange(taken[Extent(id)], &spelling))
        fail<643>(name, ": the tokens ", in_quotes(std::min(*other, spelling)), " and ", in_quotes(std::max(*other, spelling)),
                  " both have the id ", id);
      const auto as_added = added_texts.find(id);
      const bool is_added = as_added != added_texts.end() && as_added->second == spelling;
      if (auto bytes = unspell(spelling); bytes && (!is_added || *bytes == spelling))
        tokens[Extent(id)] = std::move(*bytes);
      else if (!is_added)
        fail<643>(name, ": the token ", id, ", ", in_quotes(spelling), ", isn't spelled in GPT-2's byte alphabet: not a byte-level vocabulary");
    }
    return tokens;
  }

  int at(std::string_view spelling, Extent rank, std::string_view name) const {
    const auto found = ids.find(std::string{spelling});
    if (found == ids.end())
      fail<644>(name, ": merge ", rank, " names ", in_quotes(spelling), ", which the vocabulary of ", ids.size(), " tokens lacks");
    return found->second;
  }
};

/// "a b" as {"a", "b"}; nothing if that isn't two words.
std::optional<std::pair<std::string_view, std::string_view>> two_words(std::string_view line) {
  const auto space = line.find(' ');
  if (space == 0 || space == line.npos || space + 1 == line.size() || line.find(' ', space + 1) != line.npos) return {};
  return std::pair{line.substr(0, space), line.substr(space + 1)};
}

/// A Sequence's members, each again, or the thing itself.
void flatten(const Json& thing, const char* members, const auto& visit) {
  if (thing.is_null()) return;
  if (thing["type"].text() != "Sequence") return visit(thing);
  for (const Json& part : thing[members].items()) flatten(part, members, visit);
}

std::string literally(std::string_view text) {
  std::string regex;
  for (const char c : text) {
    if (std::string_view{R"(\^$.|?*+()[]{})"}.find(c) != std::string_view::npos) regex += '\\';
    regex += c;
  }
  return regex;
}

void read_pre_tokenizer(const Json& json, std::string_view name, std::vector<TokenizerParts::Split>& splits) {
  bool byte_level = false;
  flatten(json, "pretokenizers", [&](const Json& step) {
    const std::string& type = step["type"].text();
    if (byte_level) fail<642>(step.where(), ": a pre-tokenizer ", in_quotes(type), " after ByteLevel");
    if (type == "ByteLevel") {
      if (step.boolean("add_prefix_space", false)) fail<642>(step.where(), ": ByteLevel with add_prefix_space isn't read");
      if (step.boolean("use_regex", true)) splits.push_back({std::string{gpt2_pattern}});
      byte_level = true;
    } else if (type == "Digits") {
      splits.push_back({step.boolean("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)"});
    } else if (type == "Split") {
      const Json pattern = step["pattern"];
      const std::string behaviour = step["behavior"].text();
      const bool removed = behaviour == "Removed" && step.boolean("invert", false);
      if (behaviour != "Isolated" && !removed)
        fail<642>(step.where(), ": Split with the behavior ", in_quotes(behaviour), " isn't read, only Isolated");
      splits.push_back({pattern.contains("Regex") ? pattern["Regex"].text() : literally(pattern["String"].text()), !removed});
    } else {
      fail<642>(step.where(), ": the pre-tokenizer ", in_quotes(type), " isn't read, only Split, Digits and ByteLevel");
    }
  });
  if (!byte_level) fail<642>(name, ": no ByteLevel among the pre-tokenizers; only byte-level BPE is read");
}

void read_template(const Json& json, TokenizerParts& parts) {
  flatten(json, "processors", [&](const Json& step) {
    const std::string& type = step["type"].text();
    if (type == "ByteLevel") return;
    if (type != "TemplateProcessing")
      fail<642>(step.where(), ": the post-processor ", in_quotes(type), " isn't read, only ByteLevel and TemplateProcessing");
    bool after = false;
    for (const Json& piece : step["single"].items()) {
      if (piece.contains("Sequence")) {
        after = true;
        continue;
      }
      const std::string name = piece["SpecialToken"]["id"].text();
      for (const Json& id : step["special_tokens"][name]["ids"].items()) {
        if (id.extent() > 1U << 30) fail<643>(id.where(), " is ", id.extent(), ", which is no id");
        (after ? parts.after : parts.before).push_back(int(id.extent()));
      }
    }
  });
}

}  // namespace

Tokenizer::Tokenizer(TokenizerParts parts) : state_{std::make_shared<const State>(std::move(parts))} {}

Tokenizer Tokenizer::parse(std::string_view tokenizer_json, std::string_view name) {
  const Json file = Json::parse(tokenizer_json, name);
  const Json model = file["model"];
  const std::string type = model.text("type", "BPE");
  if (type != "BPE") fail<642>(name, ": the model ", in_quotes(type), " isn't read, only byte-level BPE");
  for (const char* const affix : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!model.text(affix, "").empty()) fail<642>(name, ": BPE with ", affix, ' ', in_quotes(model.text(affix, "")), " isn't read");
  if (model.boolean("byte_fallback", false)) fail<642>(name, ": BPE with byte_fallback isn't read, only byte-level BPE");
  if (model.number("dropout", 0) != 0) fail<642>(name, ": BPE with dropout ", model.number("dropout", 0), " isn't read");
  if (file.contains("normalizer"))
    flatten(file["normalizer"], "normalizers",
            [](const Json& step) { fail<642>(step.where(), ": the normalizer ", in_quotes(step["type"].text()), " isn't read"); });

  TokenizerParts parts;
  parts.ignore_merges = model.boolean("ignore_merges", false);
  const Spellings spellings{model["vocab"]};
  if (file.contains("added_tokens"))
    for (const Json& token : file["added_tokens"].items()) {
      for (const char* const option : {"single_word", "lstrip", "rstrip"})
        if (token.boolean(option, false)) fail<642>(token.where(), ": an added token with ", option, " isn't read");
      check_id(token["id"].extent(), spellings.ids.size());
      parts.added.push_back({int(token["id"].extent()), token["content"].text(), token.boolean("special", true)});
    }
  parts.tokens = spellings.tokens(parts.added, name);
  for (const Json& merge : model["merges"].items()) {
    const Extent rank = parts.merges.size();
    if (merge.kind() == Json::Kind::array) {
      if (merge.size() != 2) fail<641>(merge.where(), " has ", merge.size(), " parts instead of 2");
      parts.merges.push_back({spellings.at(merge[0].text(), rank, name), spellings.at(merge[1].text(), rank, name)});
    } else {
      const auto words = two_words(merge.text());
      if (!words) fail<641>(merge.where(), " is ", in_quotes(merge.text()), ", not two tokens with a space between");
      parts.merges.push_back({spellings.at(words->first, rank, name), spellings.at(words->second, rank, name)});
    }
  }
  read_pre_tokenizer(file.contains("pre_tokenizer") ? file["pre_tokenizer"] : Json{}, name, parts.splits);
  if (file.contains("post_processor")) read_template(file["post_processor"], parts);
  return Tokenizer{std::move(parts)};
}

Tokenizer Tokenizer::parse_gpt2(std::string_view encoder_json, std::string_view vocab_bpe, std::string_view name) {
  const Spellings spellings{Json::parse(encoder_json, name)};
  TokenizerParts parts{.splits = {{std::string{gpt2_pattern}}}};
  parts.tokens = spellings.tokens({}, name);
  std::unordered_set<std::string> products;
  for (Extent at = 0, number = 1; at < vocab_bpe.size(); ++number) {
    const Extent end = std::min(vocab_bpe.find('\n', at), vocab_bpe.size());
    std::string_view line = vocab_bpe.substr(at, end - at);
    at = end + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const auto words = two_words(line);
    if (!words) fail<641>(name, ": line ", number, " of the merges is ", in_quotes(line), ", not two tokens with a space between");
    const Extent rank = parts.merges.size();
    parts.merges.push_back({spellings.at(words->first, rank, name), spellings.at(words->second, rank, name)});
    products.insert(concat(words->first, words->second));
  }
  // What is neither a byte nor made by a merge can't come from text: <|endoftext|> and its like.
  for (Extent id = 0; id < parts.tokens.size(); ++id)
    if (const std::string& token = parts.tokens[id]; token.size() > 1 && !products.contains(spell(token)))
      parts.added.push_back({int(id), token, true});
  return Tokenizer{std::move(parts)};
}

Tokenizer Tokenizer::from_gpt2(const fs::path& encoder_json, const fs::path& vocab_bpe) {
  return parse_gpt2(read_file(encoder_json), read_file(vocab_bpe), concat(encoder_json, ", ", vocab_bpe));
}

Tokenizer Tokenizer::from_file(const fs::path& tokenizer_json) { return parse(read_file(tokenizer_json), tokenizer_json.string()); }

Tokenizer Tokenizer::load(const fs::path& path) {
  if (!fs::is_directory(path)) return from_file(path);
  if (fs::exists(path / "tokenizer.json")) return from_file(path / "tokenizer.json");
  for (const char* const vocabulary : {"encoder.json", "vocab.json"})
    for (const char* const merges : {"vocab.bpe", "merges.txt"})
      if (fs::exists(path / vocabulary) && fs::exists(path / merges)) return from_gpt2(path / vocabulary, path / merges);
  fail<601>("no tokenizer in '", path, "': neither tokenizer.json nor encoder.json or vocab.json with vocab.bpe or merges.txt");
}

std::string Tokenizer::to_json() const {
  const TokenizerParts& parts = state_->parts;
  std::vector<Json> added, merges, steps;
  std::vector<Json::Member> vocabulary, framing;
  std::unordered_set<std::string> spellings;
  for (Extent id = 0; id < state_->size; ++id) {
    const auto found = state_->added.find(int(id));
    const bool is_word = id < parts.tokens.size() && !parts.tokens[id].empty();
    if (!is_word && found == state_->added.end()) continue;
    const std::string spelling = is_word ? spell(parts.tokens[id]) : found->second->text;
    if (spellings.insert(spelling).second) vocabulary.push_back({spelling, id});
  }
  for (const auto& [left, right] : parts.merges)
    merges.push_back(concat(spell(parts.tokens[Extent(left)]), ' ', spell(parts.tokens[Extent(right)])));
  for (const auto& token : parts.added)
    added.push_back(Json::object({{"id", token.id}, {"content", token.text}, {"single_word", false}, {"lstrip", false}, {"rstrip", false},
                                  {"normalized", false}, {"special", token.special}}));
  const auto byte_level = [](bool use_regex) {
    return Json::object({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}});
  };
  const bool as_gpt2 = parts.splits.size() == 1 && parts.splits[0].pattern == gpt2_pattern && parts.splits[0].keep_between;
  if (!as_gpt2)
    for (const auto& [pattern, keep_between] : parts.splits)
      steps.push_back(Json::object({{"type", "Split"}, {"pattern", Json::object({{"Regex", pattern}})},
                                    {"behavior", keep_between ? "Isolated" : "Removed"}, {"invert", !keep_between}}));
  steps.push_back(byte_level(as_gpt2));

  Json post = byte_level(true);
  if (!parts.before.empty() || !parts.after.empty()) {
    std::vector<Json> whole;
    const auto frame = [&](const std::vector<int>& ids) {
      for (const int id : ids) {
        const std::string name{token(id)};
        whole.push_back(Json::object({{"SpecialToken", Json::object({{"id", name}, {"type_id", 0}})}}));
        if (std::ranges::none_of(framing, [&](const auto& known) { return known.key == name; }))
          framing.push_back({name, Json::object({{"id", name}, {"ids", Json::array({id})}, {"tokens", Json::array({name})}})});
      }
    };
    frame(parts.before);
    const auto sequence = [](const char* name) { return Json::object({{"Sequence", Json::object({{"id", name}, {"type_id", 0}})}}); };
    whole.push_back(sequence("A"));
    frame(parts.after);
    std::vector<Json> pair = whole;
    pair.push_back(sequence("B"));
    post = Json::object({{"type", "TemplateProcessing"},
                         {"single", Json::array(whole)},
                         {"pair", Json::array(pair)},
                         {"special_tokens", Json::object(framing)}});
  }
  const Json model = Json::object({{"type", "BPE"},
                                   {"dropout", nullptr},
                                   {"unk_token", nullptr},
                                   {"continuing_subword_prefix", nullptr},
                                   {"end_of_word_suffix", nullptr},
                                   {"fuse_unk", false},
                                   {"byte_fallback", false},
                                   {"ignore_merges", parts.ignore_merges},
                                   {"vocab", Json::object(vocabulary)},
                                   {"merges", Json::array(merges)}});
  return Json::object({{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", Json::array(added)},
                       {"normalizer", nullptr},
                       {"pre_tokenizer", as_gpt2 ? steps[0] : Json::object({{"type", "Sequence"}, {"pretokenizers", Json::array(steps)}})},
                       {"post_processor", post},
                       {"decoder", byte_level(true)},
                       {"model", model}})
      .dump(1);
}

void Tokenizer::save(const fs::path& tokenizer_json) const { write_file(tokenizer_json, to_json()); }

}  // namespace dsx
