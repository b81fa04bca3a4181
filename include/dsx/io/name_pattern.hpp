// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// One line of an architecture's table of weight names: our path and the name in a file. io/weight_names.hpp applies it.
///
///     inline constexpr NamePattern table[] = {{"embedding.positions", "wpe.weight"}, {"blocks.{i}.mlp.up.bias", "h.{i}.mlp.c_fc.bias"}};
#pragma once

#include <string_view>

namespace dsx {

/// Both names may hold indices in braces: {i} for the layer, say. Ours may end in the number of one matrix of a stack: experts.down.weight[{e}].
/// Transposed: they store each matrix turned over. Piece: theirs is that piece of ours, by the split of our columns (queries of queries, keys
/// and values).
struct NamePattern {
  std::string_view ours, theirs;
  bool transposed = false;
  int piece = whole;
  static constexpr int whole = -1;
};

}  // namespace dsx
