// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Finds and removes checkpoints.
#include <dsx/core/error.hpp>
#include <dsx/io/atomic_file.hpp>
#include <dsx/io/json.hpp>
#include <dsx/train/checkpoints.hpp>

#include <cstdio>
#include <map>

namespace dsx {
namespace fs = std::filesystem;
namespace {

constexpr const char* manifest = "checkpoint.json";

/// By the step that their manifests name. A crash between two renames may leave the newest as step-N.old: find_folder() knows.
std::map<Extent, fs::path> complete_checkpoints(const fs::path& run) {
  std::map<Extent, fs::path> found;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator{run, error}) {
    std::string name = entry.path().filename().string();
    if (name.rfind("step-", 0) != 0 || name.ends_with(".partial")) continue;
    if (name.ends_with(".old")) name.resize(name.size() - 4);
    const fs::path folder = find_folder(run / name), file = folder / manifest;
    if (fs::exists(file)) found[Json::parse(read_file(file), file.string())["step"].extent()] = folder;
  }
  return found;
}

}  // namespace

fs::path checkpoint_folder(const fs::path& run, Extent step) {
  char name[40];
  std::snprintf(name, sizeof name, "step-%06zu", step);
  return run / name;
}

fs::path newest_checkpoint(const fs::path& path) {
  if (fs::exists(path / manifest)) return path;
  const auto found = complete_checkpoints(path);
  if (found.empty()) fail<670>(path, " holds no checkpoint: neither ", manifest, " nor a complete folder step-N");
  return found.rbegin()->second;
}

void keep_newest(const fs::path& run, Extent keep) {
  auto found = complete_checkpoints(run);
  while (found.size() > std::max<Extent>(keep, 1)) {
    const fs::path folder = found.begin()->second;
    fs::remove(folder / manifest);
    fs::remove_all(folder);
    found.erase(found.begin());
  }
}

}  // namespace dsx
