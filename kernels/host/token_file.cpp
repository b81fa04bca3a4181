// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Token files: how they lie on disk, their checks, and the cache of tokenised texts.
///
///     dsx::TokenFileWriter file{"tokens.bin", tokenizer.size(), tokenizer.fingerprint()};
///     file.append(tokenizer.encode(text));
///     file.finish();
#include <dsx/data/token_file.hpp>
#include <dsx/io/atomic_file.hpp>

#include "mapped_file.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <thread>

namespace dsx {

namespace fs = std::filesystem;

namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian and read as they lie");

constexpr char mark[8] = {'d', 's', 'x', 't', 'o', 'k', 'e', 'n'};
constexpr std::uint32_t version = 1;

struct Head {
  char magic[8];
  std::uint32_t version, width;
  std::uint64_t vocabulary, fingerprint;
};

struct Tail {
  std::uint64_t count, checksum;
  char magic[8];
};
static_assert(sizeof(Head) == 32 && sizeof(Tail) == 24);

Extent width_for(Extent vocabulary) { return vocabulary <= 1 << 16 ? 2 : 4; }

/// 64 bits over bytes that come in pieces, eight at a time; not meant against forgery.
class Checksum {
 public:
  void add(std::span<const std::byte> bytes) {
    for (; !bytes.empty() && filled_ != 0; bytes = bytes.subspan(1)) add_byte(bytes[0]);
    Extent i = 0;
    for (; i + 8 <= bytes.size(); i += 8) {
      std::uint64_t word;
      std::memcpy(&word, bytes.data() + i, 8);
      mix(word);
    }
    for (; i < bytes.size(); ++i) add_byte(bytes[i]);
  }
  void add(std::string_view text) { add(std::as_bytes(std::span{text.data(), text.size()})); }

  std::uint64_t value() const {
    Checksum last = *this;
    last.mix(pending_);
    last.mix(std::uint64_t(filled_));
    return last.hash_ ^ last.hash_ >> 29;
  }

 private:
  void mix(std::uint64_t word) { hash_ = std::rotl((hash_ ^ word) * 0x9E3779B97F4A7C15ULL, 29); }
  void add_byte(std::byte byte) {
    pending_ |= std::uint64_t(byte) << 8 * filled_;
    if (++filled_ == 8) mix(pending_), pending_ = 0, filled_ = 0;
  }

  std::uint64_t hash_ = 0xcbf29ce484222325ULL, pending_ = 0;
  unsigned filled_ = 0;
};

template <class T>
std::span<const std::byte> bytes_of_value(const T& value) {
  return std::as_bytes(std::span{&value, 1});
}

template <class Id>
Extent first_beyond(const std::byte* ids, Extent count, Extent vocabulary) {
  for (Extent i = 0; i < count; ++i) {
    Id id;
    std::memcpy(&id, ids + i * sizeof(Id), sizeof(Id));
    if (id >= vocabulary) return i;
  }
  return count;
}

std::string hex(std::uint64_t value) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(value));
  return digits;
}

}  // namespace

// ---- reading ----

TokenFile::TokenFile(const fs::path& file, TokenFileOptions options) : path_{file} {
  const auto mapped = std::make_shared<const MappedFile>(file);
  mapping_ = mapped;
  read(mapped->bytes(), options, file.string());
}

TokenFile TokenFile::in_memory(std::span<const std::byte> bytes, TokenFileOptions options, std::string_view name) {
  TokenFile file;
  file.read(bytes, options, name);
  return file;
}

void TokenFile::read(std::span<const std::byte> bytes, const TokenFileOptions& options, std::string_view name) {
  Head head;
  Tail tail;
  const Extent around = sizeof head + sizeof tail;
  if (bytes.size() >= sizeof mark && std::memcmp(bytes.data(), mark, sizeof mark) != 0)
    fail<648>(name, " is no token file: its first 8 bytes aren't \"dsxtoken\"");
  if (bytes.size() < around) fail<647>(name, " was cut off: of ", bytes.size(), " bytes, a token file has at least ", around);
  std::memcpy(&head, bytes.data(), sizeof head);
  std::memcpy(&tail, bytes.data() + bytes.size() - sizeof tail, sizeof tail);
  if (head.version != version) fail<648>(name, " is a token file of version ", head.version, "; this dsx reads version ", version);
  if (head.vocabulary == 0 || head.vocabulary > Extent(1) << 31 || head.width != width_for(head.vocabulary))
    fail<648>(name, " claims a vocabulary of ", head.vocabulary, " in ids of ", head.width, " bytes");
  const Extent inside = bytes.size() - around;
  if (std::memcmp(tail.magic, mark, sizeof mark) != 0) fail<647>(name, " was cut off: its ", bytes.size(), " bytes don't end in \"dsxtoken\"");
  if (inside % head.width != 0 || tail.count != inside / head.width)
    fail<647>(name, " was cut off or damaged: it should hold ", tail.count, " ids of ", head.width, " bytes, and has ", inside, " bytes for them");
  if (tail.count == 0) fail<652>(name, " holds 0 tokens");
  if (options.vocabulary != 0 && options.vocabulary != head.vocabulary)
    fail<649>(name, " was made for a vocabulary of ", head.vocabulary, " tokens, the model has ", options.vocabulary);
  if (options.fingerprint != 0 && options.fingerprint != head.fingerprint)
    fail<649>(name, " was made with the tokenizer ", hex(head.fingerprint), ", not with ", hex(options.fingerprint));
  ids_ = bytes.data() + sizeof head;
  count_ = tail.count, vocabulary_ = head.vocabulary, width_ = head.width, fingerprint_ = head.fingerprint;
  checksum_ = tail.checksum;
  if (!options.verify) return;

  const Extent beyond = width_ == 2 ? first_beyond<std::uint16_t>(ids_, count_, vocabulary_) : first_beyond<std::uint32_t>(ids_, count_, vocabulary_);
  if (beyond < count_) {
    std::uint32_t id = 0;
    std::memcpy(&id, ids_ + beyond * width_, width_);
    fail<650>(name, ": token ", beyond, " of ", count_, " has the id ", id, ", but its vocabulary is ", vocabulary_);
  }
  Checksum sum;
  sum.add(bytes.first(bytes.size() - sizeof tail));
  if (sum.value() != tail.checksum) fail<647>(name, " was damaged: its checksum is ", hex(sum.value()), ", written was ", hex(tail.checksum));
}

int TokenFile::operator[](Extent i) const {
  std::uint32_t id = 0;
  if (i >= count_) fail<650>("token ", i, " of a token file of ", count_);
  std::memcpy(&id, ids_ + i * width_, width_);
  return int(id);
}

void TokenFile::copy(Range range, std::span<int> into) const {
  if (range.begin > range.end || range.end > count_ || into.size() != range.size())
    fail<650>("tokens ", range.begin, " to ", range.end, " into ", into.size(), " places, from a token file of ", count_);
  const std::byte* from = ids_ + range.begin * width_;
  if (width_ == 4) {
    std::memcpy(into.data(), from, into.size_bytes());
  } else {
    for (int& id : into) {
      std::uint16_t narrow;
      std::memcpy(&narrow, from, sizeof narrow);
      id = narrow;
      from += sizeof narrow;
    }
  }
}

// ---- writing ----

struct TokenFileWriter::State {
  AtomicFile file;
  Extent vocabulary, width, count = 0;
  Checksum sum;
  std::vector<std::byte> buffer = {};

  void flush() {
    sum.add(buffer);
    file.write(std::span<const std::byte>{buffer});
    buffer.clear();
  }
};

TokenFileWriter::TokenFileWriter(const fs::path& file, Extent vocabulary, std::uint64_t fingerprint)
    : state_{new State{AtomicFile{file}, vocabulary, width_for(vocabulary), 0, {}}} {
  Head head{{}, version, std::uint32_t(state_->width), vocabulary, fingerprint};
  std::memcpy(head.magic, mark, sizeof mark);
  const auto bytes = bytes_of_value(head);
  state_->buffer.assign(bytes.begin(), bytes.end());
}

TokenFileWriter::TokenFileWriter(TokenFileWriter&&) noexcept = default;
TokenFileWriter::~TokenFileWriter() = default;

void TokenFileWriter::append(std::span<const int> ids) {
  State& s = *state_;
  for (const int id : ids) {
    if (id < 0 || Extent(id) >= s.vocabulary) fail<650>("token ", s.count, " has the id ", id, ", but the vocabulary is ", s.vocabulary);
    const auto bytes = bytes_of_value(id).first(s.width);
    s.buffer.insert(s.buffer.end(), bytes.begin(), bytes.end());
    ++s.count;
    if (s.buffer.size() >= 1_MiB) s.flush();
  }
}

void TokenFileWriter::finish() {
  State& s = *state_;
  if (s.count == 0) fail<652>("'", s.file.path(), "' would hold 0 tokens");
  s.flush();
  Tail tail{s.count, s.sum.value(), {}};
  std::memcpy(tail.magic, mark, sizeof mark);
  s.file.write(bytes_of_value(tail));
  s.file.commit();
}

// ---- the cache ----

namespace {

Tokenised tokenise(std::span<const std::string_view> texts, const Tokenizer& tokenizer, const fs::path& folder, const TokeniseProgress& progress) {
  Checksum sum;
  Extent whole = 0, invalid = 0;
  for (const std::string_view text : texts) {
    const std::uint64_t length = text.size();
    sum.add(bytes_of_value(length)), sum.add(text);
    whole += length;
    invalid += count_invalid_bytes(text);
  }
  if (whole == 0) fail<652>("0 bytes in ", texts.size(), " texts: nothing to make tokens of");

  make_folders(folder);
  const fs::path file = folder / concat("tokens-", hex(sum.value()), '-', hex(tokenizer.fingerprint()), ".bin");
  const TokenFileOptions wanted{.vocabulary = tokenizer.size(), .fingerprint = tokenizer.fingerprint()};
  for (;; std::this_thread::sleep_for(std::chrono::milliseconds{20})) {
    try {
      if (fs::exists(file)) return {TokenFile{file, wanted}, invalid, true};
    } catch (const Error& e) {
      if (e.number() == 601) throw;  // what can't be read can't be replaced either; a damaged file can
    }
    try {
      TokenFileWriter writer{file, tokenizer.size(), tokenizer.fingerprint()};
      const auto end = tokenizer.end_of_text();
      Extent before = 0;
      for (const std::string_view text : texts) {
        tokenizer.encode(text, {}, [&](std::span<const int> ids, Extent done) {
          writer.append(ids);
          if (progress) progress(before + done, whole);
        });
        if (end) writer.append({&*end, 1});
        before += text.size();
      }
      writer.finish();
      return {TokenFile{file, wanted}, invalid, false};
    } catch (const Error& e) {
      if (e.number() != 603) throw;  // another rank is writing this very file: wait for it
    }
  }
}

}  // namespace

Tokenised tokenise_cached(const std::vector<fs::path>& files, const Tokenizer& tokenizer, const fs::path& folder, const TokeniseProgress& progress) {
  std::vector<MappedFile> mapped;
  for (const fs::path& file : text_files(files)) mapped.emplace_back(file);
  std::vector<std::string_view> texts;
  for (const MappedFile& file : mapped) texts.push_back(file.view());
  return tokenise(texts, tokenizer, folder, progress);
}

Tokenised tokenise_cached(std::string_view text, const Tokenizer& tokenizer, const fs::path& folder, const TokeniseProgress& progress) {
  return tokenise({&text, 1}, tokenizer, folder, progress);
}

}  // namespace dsx
