// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Temporary names, locks, syncs and renames behind io/atomic_file.hpp (POSIX).
///
///     AtomicFile file{"a.json"};      // creates and locks a.json.partial
///     file.write("{}");
///     file.commit();                  // fsync(a.json.partial), rename to a.json, fsync of the folder
#include <dsx/core/error.hpp>
#include <dsx/io/atomic_file.hpp>

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace dsx {
namespace fs = std::filesystem;

namespace {

std::string cause(int error) { return concat(std::strerror(error), " (errno ", error, ')'); }

fs::path beside(const fs::path& path, const char* ending) {
  fs::path other = path;
  other += ending;
  return other;
}

/// "a/b/" and "a/b" name the same folder; a temporary name has to be appended to the latter.
fs::path without_slash(fs::path path) { return path.has_filename() || !path.has_relative_path() ? path : path.parent_path(); }

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path{"."}; }

void sync(int descriptor, const fs::path& path) {
  // Some file systems can't sync a folder and say so with EINVAL: they keep no order that we could ask for.
  if (::fsync(descriptor) != 0 && errno != EINVAL) fail<602>("can't sync '", path, "' to disk: ", cause(errno));
}

/// Opens, syncs and closes.
void sync(const fs::path& path, int flags) {
  const int descriptor = ::open(path.c_str(), flags | O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail<602>("can't open '", path, "' to sync it: ", cause(errno));
  try {
    sync(descriptor, path);
  } catch (...) {
    ::close(descriptor);
    throw;
  }
  ::close(descriptor);
}

void sync_folder_of(const fs::path& path) { sync(folder_of(path), O_DIRECTORY); }

void rename_path(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail<602>("can't rename '", from, "' to '", to, "': ", cause(errno));
}

void remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) fail<602>("can't remove '", path, "': ", cause(error.value()));
}

bool is_there(const fs::path& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0) return true;
  if (errno != ENOENT) fail<601>("can't look at '", path, "': ", cause(errno));
  return false;
}

/// Locks what `open_partial` opened. Its name may by then belong to something newer (the former writer renamed or removed
/// what we opened), so it is looked up again; only a lock on what the name means now counts.
template <class Open>
int open_locked(const fs::path& partial, const fs::path& target, Open open_partial) {
  for (;;) {
    const int descriptor = open_partial();
    if (descriptor < 0) fail<602>("can't create '", partial, "': ", cause(errno));
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      ::close(descriptor);
      fail<603>("'", target, "' is being written by another writer, which holds '", partial, "'");
    }
    struct stat opened{}, named{};
    if (::fstat(descriptor, &opened) == 0 && ::lstat(partial.c_str(), &named) == 0 && opened.st_ino == named.st_ino && opened.st_dev == named.st_dev)
      return descriptor;
    ::close(descriptor);
  }
}

}  // namespace

void detail::write_fully(int descriptor, std::span<const std::byte> bytes, const fs::path& file, Extent offset) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      fail<602>("can't write '", file, "': ", bytes.size(), " bytes at offset ", offset,
                " were not taken: ", written < 0 ? cause(errno) : std::string{"no progress"});
    bytes = bytes.subspan(Extent(written));
    offset += Extent(written);
  }
}

std::string read_file(const fs::path& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail<601>("can't open '", file, "': ", cause(errno));
  std::string text;
  struct stat status{};
  if (::fstat(descriptor, &status) == 0 && status.st_size > 0) text.reserve(Extent(status.st_size) + 1);
  int error = 0;
  for (Extent length = 0;;) {
    constexpr Extent step = 1_MiB;
    if (text.size() < length + step) text.resize(std::max(text.capacity(), length + step));
    const ssize_t got = ::read(descriptor, text.data() + length, text.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) error = errno;
    if (got > 0) length += Extent(got);
    if (got <= 0) {
      text.resize(length);
      break;
    }
  }
  ::close(descriptor);
  if (error != 0) fail<601>("can't read '", file, "' at offset ", text.size(), ": ", cause(error));
  return text;
}

AtomicFile::AtomicFile(fs::path file) : file_{std::move(file)}, partial_{beside(file_, ".partial")} {
  struct stat status{};
  if (::stat(file_.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    fail<602>("can't replace '", file_, "': it is a folder or a device, not a file");
  descriptor_ = open_locked(partial_, file_, [&] { return ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666); });
  if (::ftruncate(descriptor_, 0) != 0) {
    const int error = errno;
    ::close(std::exchange(descriptor_, -1));
    fail<602>("can't empty '", partial_, "', left by a writer that died: ", cause(error));
  }
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : file_{std::move(other.file_)},
      partial_{std::move(other.partial_)},
      descriptor_{std::exchange(other.descriptor_, -1)},
      written_{other.written_} {}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::unlink(partial_.c_str());  // before the lock goes with the descriptor
  ::close(descriptor_);
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (descriptor_ < 0) fail<604>("'", file_, "' was committed with ", written_, " bytes; ", bytes.size(), " more were written");
  detail::write_fully(descriptor_, bytes, partial_, written_);
  written_ += bytes.size();
}

void AtomicFile::commit() {
  if (descriptor_ < 0) fail<604>("'", file_, "' is committed twice");
  sync(descriptor_, partial_);
  rename_path(partial_, file_);
  if (::close(std::exchange(descriptor_, -1)) != 0) fail<602>("can't close '", file_, "': ", cause(errno));
  sync_folder_of(file_);
}

void write_file(const fs::path& file, std::string_view text) {
  AtomicFile whole{file};
  whole.write(text);
  whole.commit();
}

void make_folders(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail<602>("can't create the folder '", folder, "': ", cause(error.value()));
}

AtomicFolder::AtomicFolder(fs::path folder) : folder_{without_slash(std::move(folder))}, partial_{beside(folder_, ".partial")} {
  if (folder_.empty()) fail<602>("can't write a folder without a name");
  struct stat status{};
  if (::stat(folder_.c_str(), &status) == 0 && !S_ISDIR(status.st_mode)) fail<602>("can't replace '", folder_, "': it is no folder");
  lock_ = open_locked(partial_, folder_, [&] {
    if (::mkdir(partial_.c_str(), 0777) != 0 && errno != EEXIST) return -1;
    int descriptor;
    do descriptor = ::open(partial_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    while (descriptor < 0 && errno == ENOENT && ::mkdir(partial_.c_str(), 0777) == 0);
    return descriptor;
  });
  try {
    for (const fs::directory_entry& left : fs::directory_iterator{partial_}) remove_tree(left.path());
    const fs::path old = beside(folder_, ".old");
    if (!is_there(old)) return;
    if (is_there(folder_))
      remove_tree(old);
    else
      rename_path(old, folder_);
  } catch (...) {
    ::close(std::exchange(lock_, -1));
    throw;
  }
}

AtomicFolder::AtomicFolder(AtomicFolder&& other) noexcept
    : folder_{std::move(other.folder_)}, partial_{std::move(other.partial_)}, lock_{std::exchange(other.lock_, -1)} {}

AtomicFolder::~AtomicFolder() {
  if (lock_ < 0) return;
  std::error_code ignored;
  fs::remove_all(partial_, ignored);
  ::close(lock_);
}

void AtomicFolder::commit() {
  if (lock_ < 0) fail<604>("'", folder_, "' is committed twice");
  for (const fs::directory_entry& part : fs::recursive_directory_iterator{partial_}) {
    if (part.is_symlink()) continue;
    if (part.is_directory()) sync(part.path(), O_DIRECTORY);
    if (part.is_regular_file()) sync(part.path(), 0);
  }
  sync(lock_, partial_);
  sync_folder_of(partial_);
  const fs::path old = beside(folder_, ".old");
  const bool replaces = is_there(folder_);
  if (replaces) {
    rename_path(folder_, old);
    sync_folder_of(folder_);
  }
  if (::rename(partial_.c_str(), folder_.c_str()) != 0) {
    const int error = errno;
    if (replaces) ::rename(old.c_str(), folder_.c_str());
    fail<602>("can't rename '", partial_, "' to '", folder_, "': ", cause(error));
  }
  sync_folder_of(folder_);
  ::close(std::exchange(lock_, -1));
  if (replaces) remove_tree(old);
}

fs::path find_folder(const fs::path& folder) {
  const fs::path name = without_slash(folder), old = beside(name, ".old");
  for (const fs::path& candidate : {name, old})
    if (fs::is_directory(candidate)) return candidate;
  fail<601>("there is no folder '", name, "', nor '", old, "', which a crash while it was replaced would have left");
}

}  // namespace dsx
