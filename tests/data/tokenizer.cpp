// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Byte-level BPE gives the ids that OpenAI's and Hugging Face's tokenizers give, from every form of file, and no bytes are lost.
// labels: gold
#include <io/io_support.hpp>

#include <dsx/core/random.hpp>
#include <dsx/data/bpe_trainer.hpp>
#include <dsx/data/text.hpp>
#include <dsx/data/tokenizer.hpp>
#include <dsx/io/atomic_file.hpp>
#include <dsx/io/json.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <thread>

using namespace dsx;
using namespace dsx::test;

namespace {

const std::filesystem::path golden = std::filesystem::path{DSX_GOLDEN} / "tokenizer";

std::string from_base64(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  unsigned bits = 0, value = 0;
  for (const char c : text) {
    if (c == '=') break;
    value = value << 6 | unsigned(digits.find(c)), bits += 6;
    if (bits >= 8) bits -= 8, bytes += char(value >> bits & 0xFF);
  }
  return bytes;
}

std::vector<int> ids_of(const Json& array) {
  std::vector<int> ids;
  for (const Json& id : array.items()) ids.push_back(int(id.integer()));
  return ids;
}

std::vector<Json> rows_of(const char* name) {
  std::vector<Json> rows;
  const std::string text = read_file(golden / name);
  for (Extent at = 0; at < text.size();) {
    const Extent end = text.find('\n', at);
    rows.push_back(Json::parse(std::string_view{text}.substr(at, end - at), name));
    at = end + 1;
  }
  return rows;
}

const Tokenizer& gpt2() {
  static const Tokenizer tokenizer = Tokenizer::from_gpt2(golden / "encoder.json", golden / "vocab.bpe");
  return tokenizer;
}

void check_all_gpt2_rows(const Tokenizer& tokenizer) {
  CHECK(tokenizer.size() == 50257);
  Extent rows = 0;
  for (const Json& row : rows_of("gpt2.jsonl")) {
    const std::string kind = row["kind"].text(), text = from_base64(row["base64"].text());
    const std::vector<int> expected = ids_of(row["ids"]);
    CAPTURE(row["base64"].text());
    CHECK(tokenizer.encode(text, {.special = kind == "text_special_allowed" ? Special::allowed : Special::as_text}) == expected);
    CHECK(tokenizer.decode(expected) == text);
    CHECK((count_invalid_bytes(text) > 0) == (kind == "bytes"));
    ++rows;
  }
  CHECK(rows == 407);
}

/// tokenizer.json of GPT-2, put together here from its two files.
std::string gpt2_tokenizer_json(bool merges_as_pairs) {
  std::vector<Json> merges;
  const std::string lines = read_file(golden / "vocab.bpe");
  for (Extent at = lines.find('\n') + 1; at < lines.size();) {
    const Extent end = lines.find('\n', at), space = lines.find(' ', at);
    if (merges_as_pairs)
      merges.push_back(Json::array({lines.substr(at, space - at), lines.substr(space + 1, end - space - 1)}));
    else
      merges.push_back(lines.substr(at, end - at));
    at = end + 1;
  }
  const Json special = Json::object({{"id", 50256}, {"content", "<|endoftext|>"}, {"single_word", false}, {"lstrip", false}, {"rstrip", false},
                                     {"normalized", true}, {"special", true}});
  const Json bytes = Json::object({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}});
  const Json model = Json::object({{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"continuing_subword_prefix", ""},
                                   {"end_of_word_suffix", ""}, {"fuse_unk", false},
                                   {"vocab", Json::parse(read_file(golden / "encoder.json"), "encoder.json")}, {"merges", Json::array(merges)}});
  return Json::object({{"version", "1.0"}, {"added_tokens", Json::array({special})}, {"normalizer", nullptr}, {"pre_tokenizer", bytes},
                       {"post_processor", bytes}, {"decoder", bytes}, {"model", model}}).dump();
}

Json object(const std::vector<Json::Member>& members) { return Json::object(members); }

/// With these members instead of, or beside, those of the same key.
Json replaced(const Json& whole, const std::vector<Json::Member>& members) {
  std::vector<Json::Member> all = members;
  for (const Json::Member& member : whole.members())
    if (std::ranges::none_of(members, [&](const auto& given) { return given.key == member.key; })) all.push_back(member);
  return Json::object(all);
}

/// A small tokenizer.json, changed in some of its members. Its words are "lo", "low", "22" and bytes.
Json small(const std::vector<Json::Member>& members) {
  static const Json whole = Json::parse(train_bpe("low 22 lower 22 lowest 22 low", {.vocabulary = 262}).to_json(), "small");
  return replaced(whole, members);
}

/// Applies merges as the definition says: again and again the earliest merge, at its leftmost place.
std::vector<int> merged_by_definition(const TokenizerParts& parts, std::string_view word) {
  std::vector<std::string> pieces;
  for (const char c : word) pieces.emplace_back(1, c);
  for (;;) {
    Extent best = parts.merges.size(), at = 0;
    for (Extent i = 0; i + 1 < pieces.size(); ++i)
      for (Extent rank = 0; rank < best; ++rank)
        if (parts.tokens[Extent(parts.merges[rank].left)] == pieces[i] && parts.tokens[Extent(parts.merges[rank].right)] == pieces[i + 1])
          best = rank, at = i;
    if (best == parts.merges.size()) break;
    pieces[at] += pieces[at + 1];
    pieces.erase(pieces.begin() + std::ptrdiff_t(at) + 1);
  }
  std::vector<int> ids;
  for (const std::string& piece : pieces)
    ids.push_back(int(std::find(parts.tokens.begin(), parts.tokens.end(), piece) - parts.tokens.begin()));
  return ids;
}

}  // namespace

TEST_CASE("GPT-2's two files give all golden ids") { check_all_gpt2_rows(gpt2()); }

TEST_CASE("a tokenizer.json with merges as strings gives all golden ids of GPT-2") {
  check_all_gpt2_rows(Tokenizer::parse(gpt2_tokenizer_json(false)));
}

TEST_CASE("a tokenizer.json with merges as pairs gives all golden ids of GPT-2") {
  check_all_gpt2_rows(Tokenizer::parse(gpt2_tokenizer_json(true)));
}

TEST_CASE("a saved tokenizer is the same tokenizer") {
  const TemporaryFolder folder;
  gpt2().save(folder / "tokenizer.json");
  const Tokenizer again = Tokenizer::load(folder.path());
  check_all_gpt2_rows(again);
  CHECK(again.fingerprint() == gpt2().fingerprint());
  CHECK(again.to_json() == read_file(folder / "tokenizer.json"));
  CHECK(again.fingerprint() != Tokenizer::from_file(golden / "llama3_style.tokenizer.json").fingerprint());
}

TEST_CASE("a tokenizer in Llama 3's style gives all golden ids, framed and not, and again after saving") {
  const Tokenizer read = Tokenizer::from_file(golden / "llama3_style.tokenizer.json");
  for (const Tokenizer& tokenizer : {read, Tokenizer::parse(read.to_json())}) {
    Extent rows = 0;
    for (const Json& row : rows_of("llama3_style.jsonl")) {
      const std::string text = from_base64(row["base64"].text());
      const std::vector<int> ids = ids_of(row["ids"]);
      CAPTURE(row["base64"].text());
      // Hugging Face always finds special tokens in a text.
      CHECK(tokenizer.encode(text, {.special = Special::allowed}) == ids);
      CHECK(tokenizer.encode(text, {.special = Special::allowed, .framed = true}) == ids_of(row["ids_with_special"]));
      CHECK(tokenizer.decode(ids) == from_base64(row["decoded_base64"].text()));
      ++rows;
    }
    CHECK(rows >= 60);
    CHECK(tokenizer.size() == 600);
    CHECK(tokenizer.end_of_text() == 1);
  }
}

TEST_CASE("a folder of any of the known file names is found") {
  const TemporaryFolder folder;
  for (const auto& [vocabulary, merges] : {std::pair{"encoder.json", "vocab.bpe"}, std::pair{"vocab.json", "merges.txt"}}) {
    std::filesystem::copy(golden / "encoder.json", folder / vocabulary);
    std::filesystem::copy(golden / "vocab.bpe", folder / merges);
    CHECK(Tokenizer::load(folder.path()).fingerprint() == gpt2().fingerprint());
    std::filesystem::remove(folder / vocabulary);
    const Refusal refusal = error_of([&] { Tokenizer::load(folder.path()); });
    CHECK(refusal == 601);
    CHECK(refusal.says(folder.path().string()));
    std::filesystem::remove(folder / merges);
  }
  CHECK(error_of([&] { Tokenizer::load(folder / "absent.json"); }) == 601);
}

TEST_CASE("special tokens are text unless they are allowed") {
  const Tokenizer& tokenizer = gpt2();
  CHECK(tokenizer.end_of_text() == 50256);
  CHECK(tokenizer.is_special(50256));
  CHECK_FALSE(tokenizer.is_special(50255));
  CHECK(tokenizer.id("<|endoftext|>") == 50256);
  CHECK(tokenizer.id(" world") == 995);
  CHECK(tokenizer.id("no such token").has_value() == false);
  CHECK(tokenizer.token(995) == " world");
  CHECK(tokenizer.encode("a<|endoftext|>").size() > 3);
  CHECK(tokenizer.encode("a<|endoftext|>", {.special = Special::allowed}) == std::vector<int>{64, 50256});
  // The longest of those that begin alike; one that isn't special is always found.
  TokenizerParts parts = train_bpe("abc", {.vocabulary = 256, .special = {}}).parts();
  parts.added = {{256, "<a>", true}, {257, "<a><b>", true}, {258, "<c>", false}};
  const Tokenizer own{parts};
  CHECK(own.encode("<a><b><a><c>", {.special = Special::allowed}) == std::vector<int>{257, 256, 258});
  CHECK(own.encode("<a><c>") == std::vector<int>{*own.id("<"), *own.id("a"), *own.id(">"), 258});
}

TEST_CASE("an id without a token is refused with its value") {
  for (const int id : {-1, 50257, 2'000'000'000}) {
    const Refusal refusal = error_of([&] { gpt2().decode(id); });
    CHECK(refusal == 306);
    CHECK(refusal.says(std::to_string(id)));
  }
}

TEST_CASE("long words are merged as short ones are, by the definition") {
  const std::string text = std::string(300, 'a') + " abababba abba baab bbbaaab aabbaabb cabac bacab";
  const Tokenizer tokenizer = train_bpe(text, {.vocabulary = 290, .special = {}});
  const RandomKey key{.seed = 11};
  for (const Extent length : {2, 127, 128, 129, 130, 300, 700}) {
    for (RowId row = 0; row < 6; ++row) {
      std::string word;
      for (std::uint32_t i = 0; i < length; ++i) word += char('a' + random_words(key, row, i)[0] % (row % 3 + 1));
      CAPTURE(word);
      CHECK(tokenizer.encode(word) == merged_by_definition(tokenizer.parts(), word));
    }
  }
}

TEST_CASE("a vocabulary whose products start earlier merges is merged in the order of ranks too") {
  // No trainer makes this: "ab" is needed by the merges before the one that makes it.
  TokenizerParts parts = train_bpe("", {.vocabulary = 256, .special = {}}).parts();
  for (const char* token : {"abc", "ab", "cab", "bc"}) parts.tokens.emplace_back(token);
  const auto id = [&](std::string_view token) { return int(std::find(parts.tokens.begin(), parts.tokens.end(), token) - parts.tokens.begin()); };
  parts.merges = {{id("ab"), id("c")}, {id("c"), id("ab")}, {id("b"), id("c")}, {id("a"), id("b")}};
  const Tokenizer tokenizer{parts};
  const RandomKey key{.seed = 3};
  for (const Extent length : {40, 200, 900}) {
    std::string word;
    for (std::uint32_t i = 0; i < length; ++i) word += char('a' + random_words(key, length, i)[0] % 3);
    CHECK(tokenizer.encode(word) == merged_by_definition(parts, word));
  }
}

TEST_CASE("ten megabytes without a break are encoded in seconds") {
  const auto start = std::chrono::steady_clock::now();
  const Tokenizer llama = Tokenizer::from_file(golden / "llama3_style.tokenizer.json");
  for (const std::string& text : {std::string(10'000'000, 'a'), std::string(10'000'000, ' ') + 'x', std::string(10'000'000, '\xff')})
    for (const Tokenizer* tokenizer : {&gpt2(), &llama}) CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds{60});
}

TEST_CASE("ids come in pieces that say how far they reach") {
  std::string text;
  for (int i = 0; i < 60'000; ++i) text += concat(" word", i);
  std::vector<int> ids;
  Extent pieces = 0, last = 0;
  gpt2().encode(text, {}, [&](std::span<const int> more, Extent done) {
    ids.insert(ids.end(), more.begin(), more.end());
    CHECK(gpt2().decode(ids).size() == done);
    CHECK(done >= last);
    last = done, ++pieces;
  });
  CHECK(ids == gpt2().encode(text));
  CHECK(pieces > 3);
  CHECK(last == text.size());
}

TEST_CASE("one tokenizer serves many threads") {
  const std::string text = "The same words, again and again: the same words.";
  const std::vector<int> expected = gpt2().encode(text);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (Extent t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      const Tokenizer copy = gpt2();
      for (int i = 0; i < 200; ++i) wrong[t] += copy.encode(text) != expected;
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}

TEST_CASE("a stream shows a character only once it is complete") {
  const std::string text = "naïve 🙂 日本語 \xF0\x9F\x99 end\xE2\x82";
  StreamDecoder stream{gpt2()};
  std::string shown;
  for (const int id : gpt2().encode(text)) {
    const std::string part = stream.push(id);
    shown += part;
    CHECK(text.starts_with(shown));
    // Cut only between characters: what is invalid here is invalid in the text.
    if (shown.size() <= text.find('\xF0', text.find("語"))) CHECK(count_invalid_bytes(shown) == 0);
  }
  CHECK(shown + stream.finish() == text);
  CHECK(shown.ends_with(" end"));
  CHECK(stream.finish().empty());
  // Bytes that no byte can complete are not held back.
  for (const int byte : {0xFF, 0xC0, 0x80}) CHECK(stream.push(*gpt2().id(std::string(1, char(byte)))).size() == 1);
  CHECK(stream.push(*gpt2().id("\xE0")).empty());
  CHECK(stream.push(*gpt2().id("\x80")) == "\xE0\x80");
}

TEST_CASE("U+180E is no white space, as in the tokenizers that files were made with") {
  // With PCRE2's own \s this would be one word of three spaces.
  const std::string text = "a \xE1\xA0\x8E b";
  const std::vector<int> ids = gpt2().encode(text);
  std::vector<int> expected = gpt2().encode("a");
  for (const char* word : {" \xE1\xA0\x8E", " b"})
    for (const int id : gpt2().encode(word)) expected.push_back(id);
  CHECK(ids == expected);
}

TEST_CASE("pre-tokenizers in a sequence cut what the one before left") {
  const auto ids = [](const std::vector<Json>& steps, std::string_view text) {
    std::vector<Json> all = steps;
    all.push_back(object({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}));
    const Json sequence = object({{"type", "Sequence"}, {"pretokenizers", Json::array(all)}});
    const Tokenizer tokenizer = Tokenizer::parse(small({{"pre_tokenizer", sequence}}).dump());
    CHECK(Tokenizer::parse(tokenizer.to_json()).encode(text) == tokenizer.encode(text));
    std::string bytes;
    for (const int id : tokenizer.encode(text)) bytes += concat(tokenizer.token(id), '|');
    return bytes;
  };
  const auto split = [](const char* kind, const char* pattern, const char* behaviour, bool invert) {
    return object({{"type", "Split"}, {"pattern", object({{kind, pattern}})}, {"behavior", behaviour}, {"invert", invert}});
  };
  CHECK(ids({}, "lowlow") == "low|low|");
  CHECK(ids({split("String", "o", "Isolated", false)}, "lowlow") == "l|o|w|l|o|w|");
  CHECK(ids({split("String", ".", "Isolated", false)}, "low.low") == "low|.|low|");
  CHECK(ids({split("Regex", "w", "Isolated", false), split("Regex", "l", "Isolated", false)}, "lowlow") == "l|o|w|l|o|w|");
  CHECK(ids({split("Regex", "[a-z]+", "Removed", true)}, "low, low") == "low|low|");
  CHECK(ids({split("Regex", "x*", "Isolated", false)}, "lowxlow") == "low|x|low|");
  // Each digit alone: without this "22" is a token of this vocabulary.
  CHECK(ids({}, "22") == "22|");
  CHECK(ids({object({{"type", "Digits"}, {"individual_digits", true}})}, "22") == "2|2|");
  CHECK(ids({object({{"type", "Digits"}, {"individual_digits", false}})}, "low22low") == "low|22|low|");
}

TEST_CASE("tokenizers of other kinds are refused by their names") {
  const auto refused = [](std::vector<Json::Member> members, std::string_view name) {
    const Refusal refusal = error_of([&] { Tokenizer::parse(small(members).dump(), "x.json"); });
    CAPTURE(refusal.text);
    CHECK(refusal == 642);
    CHECK(refusal.says("x.json"));
    CHECK(refusal.says(name));
  };
  const auto typed = [](const char* type) { return object({{"type", type}}); };
  const Refusal word_piece = error_of([] { Tokenizer::from_file(golden / "wordpiece.tokenizer.json"); });
  CHECK(word_piece == 642);
  CHECK(word_piece.says("\"WordPiece\""));
  refused({{"model", object({{"type", "Unigram"}, {"vocab", Json::array({})}})}}, "\"Unigram\"");
  refused({{"normalizer", typed("NFC")}}, "\"NFC\"");
  refused({{"normalizer", object({{"type", "Sequence"}, {"normalizers", Json::array({typed("Lowercase")})}})}}, "\"Lowercase\"");
  refused({{"pre_tokenizer", typed("Metaspace")}}, "\"Metaspace\"");
  refused({{"pre_tokenizer", nullptr}}, "ByteLevel");
  refused({{"pre_tokenizer", object({{"type", "ByteLevel"}, {"add_prefix_space", true}})}}, "add_prefix_space");
  refused({{"pre_tokenizer", object({{"type", "Sequence"}, {"pretokenizers", Json::array({typed("ByteLevel"), typed("Digits")})}})}}, "\"Digits\"");
  const Json merged = object({{"type", "Split"}, {"pattern", object({{"String", " "}})}, {"behavior", "MergedWithNext"}});
  refused({{"pre_tokenizer", merged}}, "\"MergedWithNext\"");
  refused({{"post_processor", typed("BertProcessing")}}, "\"BertProcessing\"");
  refused({{"added_tokens", Json::array({object({{"id", 300}, {"content", "<mask>"}, {"lstrip", true}})})}}, "lstrip");
  for (const auto& [member, value] : std::vector<Json::Member>{{"byte_fallback", true}, {"dropout", 0.1}, {"end_of_word_suffix", "</w>"}})
    refused({{"model", replaced(small({})["model"], {{member, value}})}}, member);
}

TEST_CASE("vocabularies and merges that don't fit are refused with their values") {
  const auto refusal = [](std::vector<Json::Member> model, std::vector<Json::Member> file = {}) {
    file.push_back({"model", replaced(small({})["model"], model)});
    return error_of([&] { Tokenizer::parse(small(file).dump(), "x.json"); });
  };
  const auto vocabulary = [](std::vector<Json::Member> members) { return Json::Member{"vocab", replaced(small({})["model"]["vocab"], members)}; };
  const auto merges = [](Json merge) { return Json::Member{"merges", Json::array({merge})}; };
  const auto check = [](const Refusal& given, int number, std::vector<std::string_view> words) {
    CAPTURE(given.text);
    CHECK(given == number);
    for (const std::string_view word : words) CHECK(given.says(word));
  };
  check(refusal({}), 0, {});
  check(refusal({merges("low")}), 641, {"\"low\""});
  check(refusal({merges("l o w")}), 641, {"\"l o w\""});
  check(refusal({merges(Json::array({"l", "o", "w"}))}), 641, {"3 parts"});
  check(refusal({vocabulary({{"!", 5000000}})}), 643, {"5000000"});
  check(refusal({vocabulary({{"!", 1}})}), 643, {"\"!\"", "both have the id 1"});
  check(refusal({vocabulary({{"!", 400}, {"", 0}})}), 643, {"empty token"});
  check(refusal({vocabulary({{"\u2581the", 400}})}), 643, {"400", "\u2581the"});
  check(refusal({{"vocab", object({{"a", 0}})}, {"merges", Json::array({})}}), 643, {"byte 0"});
  check(refusal({merges("l zz")}), 644, {"\"zz\"", "merge 0"});
  check(refusal({merges("z z")}), 644, {"\"zz\""});
  check(refusal({vocabulary({{"!", -1}})}), 615, {"-1"});
  check(refusal({{"merges", 3}}), 615, {});
  const auto added = [](Extent id, const char* text) { return object({{"id", id}, {"content", text}}); };
  check(refusal({}, {{"added_tokens", Json::array({added(2, "<s>")})}}), 643, {"the id 2", "\"<s>\"", "\"#\""});
  check(refusal({}, {{"added_tokens", Json::array({added(300, "<s>"), added(301, "<s>")})}}), 643, {"twice"});
  check(refusal({}, {{"added_tokens", Json::array({added(300, "")})}}), 643, {"300"});
  check(refusal({}, {{"added_tokens", Json::array({added(1ULL << 40, "<s>")})}}), 643, {"1099511627776"});

  CHECK(error_of([] { Tokenizer::parse("{\"model\": "); }) == 611);
  CHECK(error_of([] { Tokenizer::parse("\xff"); }) == 612);
  CHECK(error_of([] { Tokenizer::parse(""); }) == 611);
  CHECK(error_of([] { Tokenizer::parse("{}"); }) == 616);
  const std::string encoder = small({})["model"]["vocab"].dump();
  CHECK(Tokenizer::parse_gpt2(encoder, "#version: 0.2\r\nl o\r\n\r\n").encode("lo").size() == 1);
  const Refusal line = error_of([&] { Tokenizer::parse_gpt2(encoder, "#version: 0.2\nl o\nlo\n", "a, b"); });
  check(line, 641, {"a, b", "line 3", "\"lo\""});
  check(error_of([&] { Tokenizer::parse_gpt2(encoder, "q x\n"); }), 644, {"\"qx\""});

  TokenizerParts parts = train_bpe("", {.vocabulary = 256, .special = {}}).parts();
  parts.merges = {{7, 256}};
  check(error_of([&] { Tokenizer{parts}; }), 644, {"256"});
  parts.merges.clear(), parts.before = {9999};
  check(error_of([&] { Tokenizer{parts}; }), 643, {"9999"});
  parts.before.clear(), parts.tokens.push_back("a");
  check(error_of([&] { Tokenizer{parts}; }), 643, {"\"a\"", "256"});
}

TEST_CASE("a split pattern that isn't one, or never comes to an end, is refused") {
  const auto with = [](std::string pattern) {
    TokenizerParts parts = train_bpe("", {.vocabulary = 256, .special = {}}).parts();
    parts.splits = {{std::move(pattern)}};
    return Tokenizer{parts};
  };
  const Refusal open = error_of([&] { with("(a"); });
  CHECK(open == 645);
  CHECK(open.says("\"(a\""));
  const Tokenizer endless = with("(a+)+(b|c+d)*$|(x+x+)+y");
  const Refusal gives_up = error_of([&] { endless.encode(std::string(64, 'x')); });
  CHECK(gives_up == 645);
  CHECK(gives_up.says("64"));
}

TEST_CASE("a tokenizer that can't be written says where") {
  const TemporaryFolder folder;
  const Refusal refusal = error_of([&] { gpt2().save(folder / "absent" / "tokenizer.json"); });
  CHECK(refusal == 602);
  CHECK(refusal.says("absent"));
}
