// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The checkpoints of a run: folders RUN/step-000123, of which the newest few are kept.
///
///     save(checkpoint_folder("run", trainer.steps()), trainer);
///     keep_newest("run", 3);
///     load(newest_checkpoint("run"), trainer);
#pragma once

#include <dsx/core/shape.hpp>

#include <filesystem>

namespace dsx {

std::filesystem::path checkpoint_folder(const std::filesystem::path& run, Extent step);

/// `path` itself if it is a checkpoint, else the complete one with the highest step in it; dsx-E670 if there is none.
std::filesystem::path newest_checkpoint(const std::filesystem::path& path);

/// Removes all but the `keep` newest. A checkpoint that is being removed is no longer found, whenever the process dies.
void keep_newest(const std::filesystem::path& run, Extent keep);

}  // namespace dsx
