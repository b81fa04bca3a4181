// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Fuzz target: whatever bytes come, the JSON parser reads them or refuses them by a numbered error, and reads what it writes.
///
///     test_fuzz_json_header corpus/json_header
#include <dsx/core/error.hpp>
#include <dsx/io/json.hpp>

#include <cstdlib>

namespace {

/// Visits everything; the number of values.
std::size_t visit(const dsx::Json& json) {
  std::size_t count = 1;
  if (json.kind() == dsx::Json::Kind::array)
    for (const dsx::Json& item : json.items()) count += visit(item);
  if (json.kind() == dsx::Json::Kind::object)
    for (const auto& [key, value] : json.members()) count += json.contains(key) ? visit(value) : 1'000'000'000;
  return count;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  try {
    const dsx::Json json = dsx::Json::parse({reinterpret_cast<const char*>(data), size}, "fuzzed");
    const std::string written = json.dump();
    const dsx::Json again = dsx::Json::parse(written, "written");
    if (again.dump() != written || visit(again) != visit(json)) std::abort();
  } catch (const dsx::Error&) {
  }
  return 0;
}
