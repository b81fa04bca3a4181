// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Weights from and to safetensors of Hugging Face, by an architecture's table of names.
///
///     const auto names = names_of(llama_weight_names, layers, weights);
///     load_tensors(file, find_weights(file, names), weights);
///     export_tensors("out", names, weights, Element::f32);
#pragma once

#include <dsx/io/weight_names.hpp>
#include <dsx/weights/weights.hpp>

#include <algorithm>

namespace dsx {

/// The table's names of what this model declares: one without biases, say, has none of theirs.
template <class Weights>
std::vector<WeightName> names_of(std::span<const NamePattern> table, std::span<const NameIndex> indices, const Weights& weights) {
  std::vector<WeightName> names = expand(table, indices);
  const auto& records = weights.records();
  std::erase_if(names, [&](const WeightName& name) {
    return std::none_of(records.begin(), records.end(), [&](const ParameterRecord& r) { return r.path == name.ours; });
  });
  return names;
}

/// The columns of our tensor that are theirs.
inline Range columns_of(const WeightName& name, const ParameterRecord& ours) {
  return name.piece == NamePattern::whole ? Range{0, ours.shape.columns} : ours.split.piece(ours.shape.columns, Extent(name.piece));
}

/// Every rank reads all tensors and keeps what lies there. dsx-E626 if shapes don't fit.
template <class Weights>
void load_tensors(const SafetensorsSet& file, std::span<const WeightName> names, Weights& weights) {
  for (Extent i = 0; i < names.size(); ++i) {
    const auto same = [&](const WeightName& name) { return name.ours == names[i].ours; };
    if (std::any_of(names.begin(), names.begin() + std::ptrdiff_t(i), same)) continue;
    const ParameterRecord& record = weights.record(names[i].ours);
    std::vector<float> whole(record.shape.size()), part(record.shape.size());
    for (const WeightName& name : names.subspan(i)) {
      if (!same(name)) continue;
      const Range columns = columns_of(name, record);
      file.copy_to(name.theirs, View{part.data(), {record.shape.rows, columns.size()}, Element::f32}, {.transposed = name.transposed});
      for (Extent row = 0; row < record.shape.rows; ++row)
        std::copy_n(part.begin() + std::ptrdiff_t(row * columns.size()), columns.size(),
                    whole.begin() + std::ptrdiff_t(row * record.shape.columns + columns.begin));
    }
    weights.assign(names[i].ours, std::span<const float>{whole});
  }
}

/// Theirs of a whole tensor of ours, before it is turned over.
template <class T>
std::vector<T> part_of_whole(const std::vector<T>& whole, const WeightName& name, const ParameterRecord& record) {
  const Range columns = columns_of(name, record);
  std::vector<T> part;
  part.reserve(record.shape.rows * columns.size());
  for (Extent row = 0; row < record.shape.rows; ++row) {
    const auto first = whole.begin() + std::ptrdiff_t(row * record.shape.columns);
    part.insert(part.end(), first + std::ptrdiff_t(columns.begin), first + std::ptrdiff_t(columns.end));
  }
  return part;
}

/// Every rank calls it, the root writes. `names` in the order in which shards are to be filled.
template <class Weights>
void export_tensors(const std::filesystem::path& folder, std::span<const WeightName> names, const Weights& weights, Element element,
                    const ShardOptions& shards = {}) {
  std::vector<TensorSpec> specs;
  for (const WeightName& name : names) {
    const ParameterRecord& record = weights.record(name.ours);
    Extent rows = record.shape.rows, columns = columns_of(name, record).size();
    if (name.transposed) std::swap(rows, columns);
    specs.push_back({name.theirs, element, {columns}});
    if (record.shape.rows > 1) specs.back().dims = {rows, columns};
  }
  const bool root = weights.mesh().session().is_root();
  std::optional<SafetensorsSetWriter> writer;
  if (root) {
    make_folders(folder);
    writer.emplace(folder, specs, shards);
  }
  std::vector<WeightName> sorted(names.begin(), names.end());  // as each shard wants them: all are of one element
  std::sort(sorted.begin(), sorted.end(), [](const WeightName& a, const WeightName& b) { return a.theirs < b.theirs; });
  for (const WeightName& name : sorted) {
    const ParameterRecord& record = weights.record(name.ours);
    std::vector<float> part = part_of_whole(weights.weight(name.ours), name, record);
    if (writer) writer->write(name.theirs, View{part.data(), {record.shape.rows, part.size() / record.shape.rows}, Element::f32}, name.transposed);
  }
  if (writer) writer->commit();
}

}  // namespace dsx
