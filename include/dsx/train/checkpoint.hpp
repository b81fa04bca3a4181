// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Checkpoints: whole tensors by parameter path, so any layout reads what another wrote.
///
///     save("checkpoint", trainer, [](const std::filesystem::path& folder) { tokenizer.save(folder / "tokenizer.json"); });
///     Json saved = load("checkpoint", trainer);           // weights, moments, step
///     load_weights("checkpoint", weights);                // a generator needs no moments
///
/// A folder holds weights.safetensors, state.safetensors and checkpoint.json, and owed.safetensors where reductions owe what packing took
/// from gradients. State that rests packed is unpacked, in double: exactly. Another layout's blocks round it again, each value by half a
/// step of its new block at most; blocks that begin at the same elements do not. The folder is written beside its place, synced and renamed,
/// so that at any moment the folder found under its name is complete.
#pragma once

#include <dsx/io/atomic_file.hpp>
#include <dsx/io/json.hpp>
#include <dsx/io/safetensors.hpp>
#include <dsx/train/owed.hpp>
#include <dsx/train/trainer.hpp>

#include <functional>
#include <optional>

namespace dsx {

namespace detail {

inline constexpr int checkpoint_version = 1;

struct NamedTensor {
  std::string name, path;
  Which which{};
  Shape shape{};
  bool buffer = false;
};

/// By name: the order in which a safetensors file of one element type is written.
inline void sort_by_name(std::vector<NamedTensor>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
}
template <class Weights>
std::vector<NamedTensor> weight_tensors(const Weights& weights) {
  std::vector<NamedTensor> all;
  for (const ParameterRecord& r : weights.records()) all.push_back({r.path, r.path, {}, r.shape});
  for (const ParameterRecord& r : weights.buffers()) all.push_back({r.path, r.path, {}, r.shape, true});
  sort_by_name(all);
  return all;
}
template <class Weights>
std::vector<NamedTensor> state_tensors(const Weights& weights, const auto& optimizer) {
  std::vector<NamedTensor> all;
  for (const ParameterRecord& r : weights.records()) {
    if (!r.trained) continue;
    Extent i = 0;
    for (const StateSpec& s : optimizer.states({.whole = r.shape, .role = r.role}))
      all.push_back({r.path + "." + s.name, r.path, {Which::Of::state, i++}, r.shape});
  }
  sort_by_name(all);
  return all;
}

/// Every rank takes part in collecting; the root, which has a file, writes.
template <class T, class Weights>
void write_tensors(const std::filesystem::path& file, bool root, const Weights& weights, const std::vector<NamedTensor>& tensors) {
  std::vector<TensorSpec> specs;
  for (const NamedTensor& t : tensors)
    specs.push_back(
        {t.name, element_of<T>, t.shape.rows == 1 ? std::vector<Extent>{t.shape.columns} : std::vector<Extent>{t.shape.rows, t.shape.columns}});
  std::optional<SafetensorsWriter> writer;
  if (root) writer.emplace(file, specs, Metadata{{"format", "dsx"}});
  for (const NamedTensor& t : tensors) {
    std::vector<T> whole = t.buffer ? weights.template buffer<T>(t.path) : weights.template collect<T>(t.path, t.which);
    if (writer) writer->write(t.name, View{whole.data(), t.shape, element_of<T>});
  }
  if (writer) writer->commit();
}
/// Opens a file and sees that it holds exactly these tensors in these shapes: nothing is assigned before all files are known to fit.
template <class T>
SafetensorsFile open_tensors(const std::filesystem::path& file, const std::vector<NamedTensor>& tensors) {
  SafetensorsFile stored{file};
  for (const TensorEntry& entry : stored.tensors())
    if (std::none_of(tensors.begin(), tensors.end(), [&](const NamedTensor& t) { return t.name == entry.name; }))
      fail<671>(file, " holds ", entry.name, ", which this model and optimizer don't have");
  for (const NamedTensor& t : tensors) {
    if (!stored.contains(t.name)) fail<671>(file, " lacks ", t.name, ", which this model and optimizer need");
    stored.copy_to(t.name, View{nullptr, t.shape, element_of<T>});
  }
  return stored;
}
template <class T, class Weights>
void assign_tensors(const SafetensorsFile& stored, Weights& weights, const std::vector<NamedTensor>& tensors) {
  for (const NamedTensor& t : tensors) {
    std::vector<T> whole(t.shape.size());
    stored.copy_to(t.name, View{whole.data(), t.shape, element_of<T>});
    const std::span<const T> given{whole};
    t.buffer ? weights.assign_buffer(t.path, given) : weights.assign(t.path, given, t.which);
  }
}
/// Calls f(T{}) with the type of master weights.
template <class Weights>
void with_master(const Weights& weights, auto f) {
  weights.elements().master == Element::f64 ? f(double{}) : f(float{});
}
/// Calls f(T{}) with the type of state: what was packed is exact in a double, and packs into the same bits again.
template <class Weights>
void with_state(const Weights& weights, auto f) {
  const auto& all = weights.bundles().all();
  const bool packed = std::any_of(all.begin(), all.end(), [](const Bundle& b) { return b.codecs.state; });
  packed || weights.elements().master == Element::f64 ? f(double{}) : f(float{});
}
inline Json read_manifest(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "checkpoint.json";
  if (!std::filesystem::exists(file)) fail<670>(folder, " is no checkpoint: it has no checkpoint.json");
  Json manifest = Json::parse(read_file(file), file.string());
  if (const auto version = manifest["version"].integer(); version != checkpoint_version)
    fail<670>(file, " has version ", version, "; this dsx reads version ", checkpoint_version);
  return manifest;
}

}  // namespace detail

/// Writes weights, optimizer state and step; every rank calls it. `also(folder)` adds files, on the root; `extra` goes into the manifest.
template <class Trainer>
void save(const std::filesystem::path& folder, Trainer& trainer, auto also, const Json& extra) {
  auto& weights = trainer.weights();
  const bool root = trainer.mesh().session().is_root();
  std::optional<AtomicFolder> target;
  if (root) target.emplace(folder);
  const std::filesystem::path path = root ? target->path() : folder;
  detail::with_master(weights, [&](auto zero) {
    using T = decltype(zero);
    detail::write_tensors<T>(path / "weights.safetensors", root, weights, detail::weight_tensors(weights));
  });
  detail::with_state(weights, [&](auto zero) {
    detail::write_tensors<decltype(zero)>(path / "state.safetensors", root, weights, detail::state_tensors(weights, trainer.optimizer()));
  });
  write_owed(path / "owed.safetensors", root, weights);
  if (root) {
    also(path);
    write_file(path / "checkpoint.json",
               Json::object({{"version", detail::checkpoint_version}, {"step", trainer.steps()}, {"extra", extra}}).dump(2));
    target->commit();
  }
  trainer.mesh().world().barrier();  // no rank goes on before the checkpoint is there
}
template <class Trainer>
void save(const std::filesystem::path& folder, Trainer& trainer) {
  save(folder, trainer, [](const std::filesystem::path&) {}, Json{});
}

/// Reads what save() wrote, under any layout; every rank calls it. Returns `extra`. `say(line)`, if given, hears what didn't come along.
template <class Trainer>
Json load(const std::filesystem::path& name, Trainer& trainer, const std::function<void(std::string_view)>& say = {}) {
  const std::filesystem::path folder = find_folder(name);
  const Json manifest = detail::read_manifest(folder);
  const Extent step = manifest["step"].extent();
  auto& weights = trainer.weights();
  const auto weight_tensors = detail::weight_tensors(weights), state_tensors = detail::state_tensors(weights, trainer.optimizer());
  detail::with_master(weights, [&](auto zero) {
    using T = decltype(zero);
    detail::with_state(weights, [&](auto state_zero) {
      using S = decltype(state_zero);
      const SafetensorsFile stored_weights = detail::open_tensors<T>(folder / "weights.safetensors", weight_tensors);
      const SafetensorsFile stored_state = detail::open_tensors<S>(folder / "state.safetensors", state_tensors);
      detail::assign_tensors<T>(stored_weights, weights, weight_tensors);
      detail::assign_tensors<S>(stored_state, weights, state_tensors);
    });
  });
  weights.bundles().pack_loaded();
  if (!read_owed(folder / "owed.safetensors", weights) && say)
    say(concat("warning: what reductions owed in ", folder, " belongs to another layout than ", to_text(weights.mesh().degrees()),
               "; this run begins with nothing owed"));
  trainer.resume_at(step);
  return manifest["extra"];
}
template <class Weights>
Json load_weights(const std::filesystem::path& name, Weights& weights) {
  const std::filesystem::path folder = find_folder(name);
  const Json manifest = detail::read_manifest(folder);
  detail::with_master(weights, [&](auto zero) {
    using T = decltype(zero);
    const auto tensors = detail::weight_tensors(weights);
    detail::assign_tensors<T>(detail::open_tensors<T>(folder / "weights.safetensors", tensors), weights, tensors);
  });
  return manifest["extra"];
}

}  // namespace dsx
