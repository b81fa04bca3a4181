// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Fuzz target: whatever bytes come, a safetensors file is refused by a numbered error, or all that it lists can be read.
///
///     test_fuzz_safetensors corpus/safetensors
#include <dsx/core/error.hpp>
#include <dsx/io/safetensors.hpp>

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  try {
    const dsx::SafetensorsFile file{std::as_bytes(std::span{data, size}), "fuzzed"};
    std::size_t total = 0, sum = 0;
    for (const dsx::TensorEntry& entry : file.tensors()) {
      for (const std::byte byte : file.bytes(entry.name)) ++total, sum += std::size_t(byte);  // reads each
      if (!entry.element) continue;
      std::vector<double> values(entry.size());
      try {
        file.copy_to(entry.name, {values.data(), {1, values.size()}, dsx::Element::f64});
      } catch (const dsx::Error& error) {
        if (error.number() != 626) throw;  // of integers
      }
    }
    if (total > size || sum > 255 * size) std::abort();
  } catch (const dsx::Error&) {
  }
  return 0;
}
