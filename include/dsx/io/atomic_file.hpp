// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Files and folders that appear whole or not at all, whenever the writer dies.
///
///     AtomicFolder save{"checkpoint"};                 // written as checkpoint.partial
///     AtomicFile file{save.path() / "step.json"};
///     file.write("{}"), file.commit();                 // synced, then renamed
///     save.commit();                                   // checkpoint is the new one; a crash before leaves the old one
///
/// The rule of recovery: a folder's newest complete version is FOLDER where that exists, else FOLDER.old (a crash between
/// the two renames of commit()). FOLDER.partial is never complete. find_folder() applies the rule and changes nothing;
/// the next AtomicFolder of this name renames FOLDER.old back and removes what a crash left.
#pragma once

#include <dsx/core/shape.hpp>

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace dsx {

/// A whole file; dsx-E601 names the cause.
std::string read_file(const std::filesystem::path& file);

/// Writes a file under a temporary name in its own folder. Without commit() the file's old content stays.
class AtomicFile {
 public:
  /// dsx-E603 if another writer has this file under way, in this process or another of this machine.
  explicit AtomicFile(std::filesystem::path file);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  /// dsx-E602 with file, offset and cause (disk full, quota, device) if not all of it can be written.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span{text.data(), text.size()})); }
  /// Syncs the file, renames it, syncs the folder.
  void commit();

  const std::filesystem::path& path() const { return file_; }
  Extent written() const { return written_; }

 private:
  std::filesystem::path file_, partial_;
  int descriptor_ = -1;
  Extent written_ = 0;
};

/// One small file at once.
void write_file(const std::filesystem::path& file, std::string_view text);

/// A folder and those above it, where they aren't there yet; dsx-E602 with the cause.
void make_folders(const std::filesystem::path& folder);

/// Writes a folder under a temporary name beside it. Without commit() the old folder stays.
class AtomicFolder {
 public:
  /// First applies the rule of recovery. dsx-E603 if another writer has this folder under way.
  explicit AtomicFolder(std::filesystem::path folder);
  AtomicFolder(AtomicFolder&& other) noexcept;
  AtomicFolder& operator=(AtomicFolder&&) = delete;
  ~AtomicFolder();

  /// Where to write; other ranks of the machine may write there too, until commit().
  const std::filesystem::path& path() const { return partial_; }
  /// Syncs all that was written, renames the old folder aside and the new one into its place, removes the old one.
  void commit();

 private:
  std::filesystem::path folder_, partial_;
  int lock_ = -1;
};

/// The newest complete version of a folder, by the rule of recovery; dsx-E601 if there is none.
std::filesystem::path find_folder(const std::filesystem::path& folder);

namespace detail {
/// Writes all bytes or fails; `offset` is where they begin in `file`, for the message.
void write_fully(int descriptor, std::span<const std::byte> bytes, const std::filesystem::path& file, Extent offset);
}  // namespace detail

}  // namespace dsx
