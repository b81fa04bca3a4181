// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Bytes of any content are a token file whose ids lie in its vocabulary, or are refused with a dsx::Error.
///
///     test_fuzz_token_file tests/fuzz/corpus/token_file
#include <dsx/data/token_file.hpp>

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span{data, size});
  for (const bool verify : {true, false}) {
    try {
      const auto file = dsx::TokenFile::in_memory(bytes, {.verify = verify});
      std::vector<int> ids(file.size());
      file.copy({0, file.size()}, ids);
      for (dsx::Extent i = 0; i < ids.size(); ++i)
        if (file[i] != ids[i] || (verify && (ids[i] < 0 || dsx::Extent(ids[i]) >= file.vocabulary()))) std::abort();
    } catch (const dsx::Error&) {
    }
  }
  return 0;
}
