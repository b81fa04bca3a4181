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
#include <array>
#include <map>
#include <set>

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

/// Which part of our tensor is one of theirs: a matrix of a stack or all of them, a piece of the columns or all.
class TheirPart {
 public:
  TheirPart(const WeightName& name, const ParameterRecord& ours)
      : rows_{ours.shape.rows / ours.stack}, stride_{ours.shape.columns}, transposed_{name.transposed} {
    matrices_ = name.matrix == NamePattern::whole ? Range{0, ours.stack} : Range{Extent(name.matrix), Extent(name.matrix) + 1};
    columns_ = name.piece == NamePattern::whole ? Range{0, stride_} : ours.split.piece(stride_, Extent(name.piece));
    if (matrices_.end > ours.stack) fail<626>(name.theirs, " is matrix ", name.matrix, " of ", name.ours, ", which has ", ours.stack);
  }
  /// A stack of several has three, a vector one.
  std::vector<Extent> dims() const {
    std::vector<Extent> all{rows_, columns_.size()};
    if (transposed_) std::swap(all[0], all[1]);
    if (rows_ == 1 && !transposed_) all.erase(all.begin());
    if (matrices_.size() > 1) all.insert(all.begin(), matrices_.size());
    return all;
  }
  /// Its matrices below one another.
  Shape shape() const { return transposed_ ? Shape{matrices_.size() * columns_.size(), rows_} : Shape{matrices_.size() * rows_, columns_.size()}; }
  /// f(an element of theirs, the same of ours).
  void each(auto&& f) const {
    for (Extent m = 0; m < matrices_.size(); ++m)
      for (Extent r = 0; r < rows_; ++r)
        for (Extent c = 0; c < columns_.size(); ++c)
          f(m * rows_ * columns_.size() + (transposed_ ? c * rows_ + r : r * columns_.size() + c),
            ((matrices_.begin + m) * rows_ + r) * stride_ + columns_.begin + c);
  }

 private:
  Extent rows_, stride_;
  bool transposed_;
  Range matrices_{}, columns_{};
};

/// Every rank reads all tensors and keeps what lies there. dsx-E626 if shapes don't fit.
template <class Weights>
void load_tensors(const SafetensorsSet& file, std::span<const WeightName> names, Weights& weights) {
  std::set<std::string_view> done;
  std::multimap<std::string_view, const WeightName*> parts;
  for (const WeightName& name : names) parts.emplace(name.ours, &name);
  for (const WeightName& first : names) {
    if (!done.insert(first.ours).second) continue;
    const ParameterRecord& record = weights.record(first.ours);
    std::vector<float> whole(record.shape.size()), part;
    for (auto [at, end] = parts.equal_range(first.ours); at != end; ++at) {
      const TheirPart theirs{*at->second, record};
      part.resize(theirs.shape().size());
      file.copy_to(at->second->theirs, View{part.data(), theirs.shape(), Element::f32});
      theirs.each([&](Extent from, Extent to) { whole[to] = part[from]; });
    }
    weights.assign(first.ours, std::span<const float>{whole});
  }
}

/// Theirs, as it is stored, of a whole tensor of ours.
template <class T>
std::vector<T> part_of_whole(const std::vector<T>& whole, const WeightName& name, const ParameterRecord& record) {
  const TheirPart theirs{name, record};
  std::vector<T> part(theirs.shape().size());
  theirs.each([&](Extent to, Extent from) { part[to] = whole[from]; });
  return part;
}

/// Every rank calls it, the root writes. `names` in the order in which shards are to be filled.
template <class Weights>
void export_tensors(const std::filesystem::path& folder, std::span<const WeightName> names, const Weights& weights, Element element,
                    const ShardOptions& shards = {}) {
  std::vector<TensorSpec> specs;
  for (const WeightName& name : names) specs.push_back({name.theirs, element, TheirPart{name, weights.record(name.ours)}.dims()});
  const bool root = weights.mesh().session().is_root();
  std::optional<SafetensorsSetWriter> writer;
  if (root) {
    make_folders(folder);
    writer.emplace(folder, specs, shards);
  }
  std::vector<WeightName> sorted(names.begin(), names.end());  // as each shard wants them: all are of one element
  std::sort(sorted.begin(), sorted.end(), [](const WeightName& a, const WeightName& b) { return a.theirs < b.theirs; });
  // Near names are parts of few tensors (experts' gates and values take turns with what comes down): two are held.
  std::array<std::pair<std::string, std::vector<float>>, 2> held;
  for (const WeightName& name : sorted) {
    if (held[0].first != name.ours) std::swap(held[0], held[1]);
    if (held[0].first != name.ours) held[0] = {name.ours, weights.weight(name.ours)};
    const ParameterRecord& record = weights.record(name.ours);
    std::vector<float> part = part_of_whole(held[0].second, name, record);
    if (writer) writer->write(name.theirs, View{part.data(), TheirPart{name, record}.shape(), Element::f32});
  }
  if (writer) writer->commit();
}

}  // namespace dsx
