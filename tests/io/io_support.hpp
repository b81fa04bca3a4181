// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What the tests of files share: a folder that goes away, and an error's number together with its text.
///
///     TemporaryFolder folder;
///     CHECK(error_of([&] { read_file(folder / "absent"); }) == 601);
#pragma once

#include <dsx/core/error.hpp>

#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>

namespace dsx::test {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "dsx_io_XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error{"no temporary folder"};
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// Number and text of the Error that f throws; 0 if it throws none.
struct Refusal {
  int number = 0;
  std::string text = {};
  bool says(std::string_view part) const { return text.find(part) != text.npos; }
  friend bool operator==(const Refusal& refusal, int expected) { return refusal.number == expected; }
};

template <class F>
Refusal error_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return {e.number(), e.what()};
  }
  return {};
}

inline std::span<const std::byte> as_bytes(const std::string& text) { return std::as_bytes(std::span{text.data(), text.size()}); }

}  // namespace dsx::test
