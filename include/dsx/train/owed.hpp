// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What reductions owe (error feedback), in and out of a checkpoint's folder: each rank's own, for a run in the same layout.
///
///     write_owed(folder / "owed.safetensors", root, weights);    // no file where nobody owes
///     if (!read_owed(folder / "owed.safetensors", weights)) ...  // of another layout: nothing is owed now
///
/// What a rank owes belongs to the slices that it sends, so another layout begins with nothing owed: a reduction loses once what its packing
/// lost in one step, half a step of a block at most.
#pragma once

#include <dsx/comm/mesh_text.hpp>
#include <dsx/io/safetensors.hpp>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <optional>

namespace dsx {

namespace detail {

struct OwedTensor {
  std::string name;
  View view;
};
/// This rank's, by name; its number in the mesh first, so that they follow each other in a file.
template <class Weights>
std::vector<OwedTensor> owed_tensors(Weights& weights) {
  std::vector<OwedTensor> all;
  const std::string rank = std::to_string(weights.mesh().world().rank());
  weights.bundles().each_owed([&](const std::string& name, const View& view) {
    all.push_back({concat("rank", std::string(8 - std::min<std::size_t>(8, rank.size()), '0'), rank, ".", name), view});
  });
  std::sort(all.begin(), all.end(), [](const OwedTensor& a, const OwedTensor& b) { return a.name < b.name; });
  return all;
}

}  // namespace detail

/// Every rank calls it; the root, which has a file, receives and writes.
template <class Weights>
void write_owed(const std::filesystem::path& file, bool root, Weights& weights) {
  Session& session = weights.mesh().session();
  const Communicator& world = weights.mesh().world();
  const auto mine = detail::owed_tensors(weights);
  const auto bytes_of_text = [](std::string& text) { return View{text.data(), {text.size(), 1}, Element::u8}; };
  std::string list;
  for (const auto& [name, view] : mine) list += concat(name, " ", view.size(), " ", int(view.element), "\n");
  std::vector<double> lengths(world.size());
  lengths[world.rank()] = double(list.size());
  world.all_reduce({lengths.data(), {lengths.size(), 1}, Element::f64}).wait();
  if (std::accumulate(lengths.begin(), lengths.end(), 0.0) == 0) return;
  if (!root && !list.empty()) world.send(bytes_of_text(list), 0).wait();

  std::vector<TensorSpec> specs;
  std::vector<Rank> from;
  for (Rank r = 0; root && r < world.size(); ++r) {
    std::string theirs = r == 0 ? list : std::string(std::size_t(lengths[r]), ' ');
    if (r > 0 && !theirs.empty()) world.receive(bytes_of_text(theirs), r).wait();
    for (std::size_t at = 0; at < theirs.size(); at = theirs.find('\n', at) + 1) {
      const std::size_t last = theirs.find('\n', at), element = theirs.rfind(' ', last), size = theirs.rfind(' ', element - 1);
      specs.push_back({theirs.substr(at, size - at), Element(std::stoi(theirs.substr(element + 1))), {Extent(std::stoull(theirs.substr(size + 1)))}});
      from.push_back(r);
    }
  }
  const auto whole = [&](const View& view, auto give) {
    std::vector<std::byte> copy(view.bytes());
    session.read(view, [&](const View& v) { std::memcpy(copy.data(), v.data, copy.size()); });
    give(View{copy.data(), view.shape, view.element});
  };
  if (!root)
    for (const auto& [name, view] : mine) whole(view, [&](const View& v) { world.send(v, 0).wait(); });
  if (!root) return;
  SafetensorsWriter writer{file, specs, Metadata{{"format", "dsx"}, {"layout", to_text(weights.mesh().degrees())}}};
  for (Extent i = 0; i < specs.size(); ++i) {
    const TensorSpec& tensor = specs[i];
    if (from[i] == 0) {
      whole(mine[i].view, [&](const View& v) { writer.write(tensor.name, v); });
      continue;
    }
    std::vector<double> room(tensor.dims.front());  // wide enough for either element
    const View theirs{room.data(), {room.size(), 1}, tensor.element};
    world.receive(theirs, from[i]).wait();
    writer.write(tensor.name, theirs);
  }
  writer.commit();
}

/// Every rank calls it, and all of them take it or leave it: false if there is something that is left.
template <class Weights>
bool read_owed(const std::filesystem::path& file, Weights& weights) {
  const Session& session = weights.mesh().session();
  weights.bundles().forget_owed(true);
  const auto mine = detail::owed_tensors(weights);
  std::optional<SafetensorsFile> stored;
  if (std::filesystem::exists(file)) stored.emplace(file);
  const std::pair<std::string, std::string> here{"layout", to_text(weights.mesh().degrees())};
  bool fits = stored && std::find(stored->metadata().begin(), stored->metadata().end(), here) != stored->metadata().end();
  for (const auto& [name, view] : mine) {
    if (!fits) break;
    fits = stored->contains(name) && stored->entry(name).dims == std::vector<Extent>{view.size()};
  }
  double without = fits ? 0 : 1;
  weights.mesh().world().all_reduce({&without, {1, 1}, Element::f64}, Combine::max).wait();
  if (without > 0) return !stored;
  for (const auto& [name, view] : mine) session.edit(view, [&, &tensor = name](const View& v) { stored->copy_to(tensor, v); });
  return true;
}

}  // namespace dsx
