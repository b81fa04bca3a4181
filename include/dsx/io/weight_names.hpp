// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Which tensor of a file is which parameter of ours: a table of patterns, written down once for each architecture.
///
///     constexpr NamePattern table[] = {{"table.weight", "wte.weight"}, {"blocks.{i}.qkv.weight", "h.{i}.attn.c_attn.weight"}};
///     constexpr NameIndex layers[] = {{'i', 12}};
///     for (const WeightName& name : find_weights(file, expand(table, layers), {.prefix = "transformer."}))
///       file.copy_to(name.theirs, view_of(name.ours), {.transposed = name.transposed});
#pragma once

#include <dsx/io/name_pattern.hpp>
#include <dsx/io/safetensors.hpp>

namespace dsx {

/// {letter} stands for 0 .. count - 1.
struct NameIndex {
  char letter;
  Extent count;
};

struct WeightName {
  std::string ours, theirs;
  bool transposed = false;
  int piece = NamePattern::whole;
  int matrix = NamePattern::whole;  // of a stack of ours
};

/// All names. Neighbours in the table that share an index are listed layer by layer; dsx-E629 if the sides' indices differ.
std::vector<WeightName> expand(std::span<const NamePattern> table, std::span<const NameIndex> indices);

struct WeightRules {
  /// What may stand before all their names, or before none.
  std::string_view prefix = {};
  /// Tensors that a file may hold beside the weights; {i} stands for any number. With or without the prefix.
  std::span<const std::string_view> ignored = {};
};

/// The names as the file has them, with the prefix if it uses one. dsx-E629 if a weight is absent, or if the file has a tensor
/// that is neither in the table nor ignored.
std::vector<WeightName> find_weights(const SafetensorsSet& file, std::vector<WeightName> names, const WeightRules& rules = {});

/// Where a file stores a tied weight a second time it has to be the same: dsx-E630. True if it was there.
bool check_tied(const SafetensorsSet& file, std::string_view copy, std::string_view original);

}  // namespace dsx
