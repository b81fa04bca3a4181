// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Memory that rests in a file: what comes back, how much of it is in memory at once, in which order it travels, and how it is refused.
#include <dsx/core/error.hpp>
#include <dsx/place/disk.hpp>

#include <doctest/doctest.h>

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <vector>

using namespace dsx;

namespace {

/// An empty folder for as long as it lives.
struct Folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / concat("dsx_disk_test_", Extent(getpid()));
  Folder() { std::filesystem::create_directory(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  std::vector<std::filesystem::path> files() const {
    std::vector<std::filesystem::path> all;
    for (const auto& entry : std::filesystem::directory_iterator{path}) all.push_back(entry.path());
    return all;
  }
};

template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing";
}

struct Scope {
  Offloaded& disk;
  void* name;
  Extent bytes;
  Access access;
  unsigned char* here = static_cast<unsigned char*>(disk.open(name, bytes, access));
  ~Scope() { disk.close(name, bytes, access); }
};
void fill(Offloaded& disk, void* name, Extent bytes, int value) { std::memset(Scope{disk, name, bytes, Access::write}.here, value, bytes); }
bool holds_only(Offloaded& disk, void* name, Extent bytes, int value) {
  const Scope open{disk, name, bytes, Access::read};
  return std::all_of(open.here, open.here + bytes, [value](unsigned char c) { return c == value; });
}

constexpr Extent page = 4096;

}  // namespace

TEST_CASE("many blocks in a small pool come back as they were closed, and begin as zeros") {
  const Folder folder;
  const auto disk = offloaded_to_disk({.folder = folder.path.string(), .resident_bytes = 3 * page});
  std::vector<void*> blocks;
  const auto bytes_of = [](Extent i) { return Extent{1} + i * 977 % (2 * page); };
  for (Extent i = 0; i < 40; ++i) blocks.push_back(disk->allocate(bytes_of(i), 64));
  for (Extent i = 0; i < 40; ++i) CHECK(holds_only(*disk, blocks[i], bytes_of(i), 0));
  for (int round = 1; round < 4; ++round) {
    for (Extent i = 0; i < 40; ++i) fill(*disk, blocks[i], bytes_of(i), int(i) + round);
    for (Extent i = 40; i-- > 0;) {
      if (i > 0) disk->ahead(blocks[i - 1], bytes_of(i - 1));
      CHECK(holds_only(*disk, blocks[i], bytes_of(i), int(i) + round));
    }
  }
  disk->settle();
  CHECK(folder.files().size() == 1);
  // What is given back makes room, and is zero again.
  const Extent size = std::filesystem::file_size(folder.files().front());
  for (Extent i = 0; i < 40; ++i) {
    disk->deallocate(blocks[i], bytes_of(i));
    CHECK_FALSE(disk->holds(blocks[i]));
  }
  for (Extent i = 0; i < 40; ++i) CHECK(holds_only(*disk, blocks[i] = disk->allocate(bytes_of(i), 64), bytes_of(i), 0));
  CHECK(std::filesystem::file_size(folder.files().front()) == size);
}

TEST_CASE("parts of a block are read and written beside one another, and inside what is open") {
  const Folder folder;
  const auto disk = offloaded_to_disk({.folder = folder.path.string(), .resident_bytes = 4 * page});
  auto* const block = static_cast<unsigned char*>(disk->allocate(1'000, 64));
  fill(*disk, block, 1'000, 1), fill(*disk, block + 100, 50, 2), fill(*disk, block + 150, 50, 3);
  {
    const Scope whole{*disk, block, 1'000, Access::update};
    CHECK((whole.here[99] == 1 && whole.here[100] == 2 && whole.here[150] == 3 && whole.here[200] == 1));
    const Scope part{*disk, block + 150, 10, Access::update};
    CHECK(part.here == whole.here + 150);
    part.here[0] = 9;
    CHECK(refusal([&] { disk->open(block + 990, 20, Access::read); }).starts_with("dsx-E822: 20 bytes that rest on the disk are opened while 1000"));
  }
  CHECK(holds_only(*disk, block + 150, 1, 9));
  CHECK(holds_only(*disk, block + 151, 49, 3));
}

TEST_CASE("what is open at once may not be more than the bound: dsx-E822") {
  const Folder folder;
  const auto disk = offloaded_to_disk({.folder = folder.path.string(), .resident_bytes = 2 * page});
  void* const a = disk->allocate(2 * page, 64);
  void* const b = disk->allocate(100, 64);
  {
    const Scope open{*disk, a, 2 * page, Access::read};
    CHECK(refusal([&] { disk->open(b, 100, Access::read); }) ==
          "dsx-E822: 100 bytes that rest on the disk don't fit beside 8192 that are open; the bound is 8192 bytes");
  }
  CHECK(holds_only(*disk, b, 100, 0));
  void* const c = disk->allocate(3 * page, 64);
  CHECK(refusal([&] { disk->open(c, 3 * page, Access::read); }).find("; the bound is 8192 bytes") != std::string::npos);
}

TEST_CASE("a read asked for ahead is waited for, not asked for again, and what is changed is written without a wait") {
  const Folder folder;
  std::vector<DiskEvent> events;
  const auto disk =
      offloaded_to_disk({.folder = folder.path.string(), .resident_bytes = 8 * page, .observer = [&](const DiskEvent& e) { events.push_back(e); }});
  using What = DiskEvent::What;
  void* const a = disk->allocate(page, 64);
  void* const b = disk->allocate(page, 64);
  disk->ahead(a, page), disk->ahead(a, page);
  {
    const Scope open{*disk, a, page, Access::update};
    disk->ahead(b, page);
  }
  {
    const Scope open{*disk, b, page, Access::read};
  }
  {
    const Scope open{*disk, b, page, Access::read};
  }
  std::vector<std::pair<What, const void*>> seen;
  for (const DiskEvent& e : events) seen.push_back({e.what, e.resting});
  const std::vector<std::pair<What, const void*>> expected{{What::read, a},   {What::opened, a}, {What::read, b},
                                                           {What::closed, a}, {What::write, a},  {What::opened, b},
                                                           {What::closed, b}, {What::opened, b}, {What::closed, b}};
  CHECK(seen == expected);
}

TEST_CASE("a folder that isn't there, and one in which no file can be made, are refused: dsx-E819, dsx-E820") {
  const Folder folder;
  const std::string missing = (folder.path / "missing").string();
  CHECK(refusal([&] {
          offloaded_to_disk({.folder = missing});
        }).starts_with("dsx-E819: what rests on the disk should lie in \"" + missing + "\", which is no folder"));
  const std::string file = (folder.path / "file").string();
  std::ofstream{file} << "text";
  CHECK(refusal([&] { offloaded_to_disk({.folder = file}); }).starts_with("dsx-E819"));
  // In /proc even root makes no files.
  CHECK(refusal([] { offloaded_to_disk({.folder = "/proc"}); }).starts_with("dsx-E820: the file /proc/dsx-"));
  if (geteuid() == 0) return;
  std::filesystem::permissions(folder.path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  const std::string text = refusal([&] { offloaded_to_disk({.folder = folder.path.string()}); });
  std::filesystem::permissions(folder.path, std::filesystem::perms::owner_all);
  CHECK(text.starts_with("dsx-E820"));
  CHECK(text.ends_with("Permission denied"));
}

TEST_CASE("a disk without room is refused when it is asked for, with what is left, and goes on with what it has: dsx-E821") {
  const Folder folder;
  const auto disk = offloaded_to_disk({.folder = folder.path.string(), .resident_bytes = 4 * page});
  void* const before = disk->allocate(page, 64);
  // A limit on the size of files is what a test can have of a full disk.
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{8 * page, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string text = refusal([&] { disk->allocate(1_MiB, 64); });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK(text.starts_with("dsx-E821: the file " + folder.files().front().string() + " of 4096 bytes can't grow by 1048576: "));
  CHECK(text.ends_with(" bytes left"));
  fill(*disk, before, page, 5);
  CHECK(holds_only(*disk, disk->allocate(2 * page, 64), 2 * page, 0));
  CHECK(holds_only(*disk, before, page, 5));
}

TEST_CASE("a file that was cut off is told with the bytes that are left, a failed write at the next opening: dsx-E823, dsx-E824") {
  const Folder folder;
  const auto disk = offloaded_to_disk({.folder = folder.path.string(), .resident_bytes = page});
  void* const a = disk->allocate(page, 64);
  void* const b = disk->allocate(page, 64);
  fill(*disk, b, page, 1), fill(*disk, a, page, 1);
  disk->settle();
  const auto file = folder.files().front();
  std::filesystem::resize_file(file, page + 100);
  CHECK(refusal([&] { disk->open(b, page, Access::read); }) ==
        concat("dsx-E823: the file ", file.string(), " was cut off: of 4096 bytes at 4096 it holds 100"));
  disk->ahead(b, page);
  CHECK(refusal([&] { disk->open(b, page, Access::read); }).starts_with("dsx-E823"));
  CHECK(holds_only(*disk, a, page, 1));

  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{page / 2, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  fill(*disk, a, page, 2);
  const std::string text = refusal([&] { disk->settle(); });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK(text == concat("dsx-E824: 4096 bytes at 0 of the file ", file.string(), " can't be written, 2048 were: File too large"));
  fill(*disk, a, page, 3);
  disk->settle();
  CHECK(holds_only(*disk, a, page, 3));
}

TEST_CASE("files are removed at the end, also after an error") {
  const Folder folder;
  {
    const auto disk = offloaded_to_disk({.folder = folder.path.string(), .resident_bytes = page}),
               other = offloaded_to_disk({.folder = folder.path.string()});
    void* const a = disk->allocate(page, 64);
    CHECK(folder.files().size() == 2);
    std::filesystem::resize_file(folder.files().front(), 0), std::filesystem::resize_file(folder.files().back(), 0);
    CHECK(refusal([&] { disk->open(a, page, Access::read); }).starts_with("dsx-E823"));
  }
  CHECK(folder.files().empty());
}
