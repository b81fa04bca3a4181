// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Tokenizer files of any content are read or refused with a dsx::Error; what is read encodes any bytes without losing one.
///
///     test_fuzz_tokenizer_files tests/fuzz/corpus/tokenizer_files
#include <dsx/data/tokenizer.hpp>

#include <algorithm>
#include <cstdlib>

namespace {

void use(const dsx::Tokenizer& tokenizer, std::string_view input) {
  const bool lossless = std::ranges::all_of(tokenizer.parts().splits, [](const auto& split) { return split.keep_between; });
  for (const std::string_view text : {input.substr(0, 400), std::string_view{"It's 1984,  \xF0\x9F\x99\x82\xFF\n lowlow lower"}})
    for (const dsx::Special special : {dsx::Special::as_text, dsx::Special::allowed}) {
      const std::vector<int> ids = tokenizer.encode(text, {.special = special});
      if (lossless && tokenizer.decode(ids) != text) std::abort();
      dsx::StreamDecoder stream{tokenizer};
      std::string shown;
      for (const int id : ids) shown += stream.push(id);
      if (shown + stream.finish() != tokenizer.decode(ids)) std::abort();
    }
  (void)tokenizer.encode("low", {.framed = true});
  (void)tokenizer.to_json();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string_view input{reinterpret_cast<const char*>(data), size};
  try {
    use(dsx::Tokenizer::parse(input), input);
  } catch (const dsx::Error&) {
  }
  // The first line as encoder.json, the others as vocab.bpe.
  const std::size_t line = std::min(input.find('\n'), size);
  try {
    use(dsx::Tokenizer::parse_gpt2(input.substr(0, line), input.substr(std::min(line + 1, size))), input);
  } catch (const dsx::Error&) {
  }
  return 0;
}
