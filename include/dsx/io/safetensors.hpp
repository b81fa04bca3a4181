// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Reads and writes safetensors: one file, or a folder of shards with an index, as Hugging Face lays them out.
///
///     SafetensorsSet weights{"gpt2"};                                     // gpt2/model.safetensors, or its shards
///     weights.copy_to("h.0.attn.c_attn.weight", view);                    // converted to the view's element
///     SafetensorsWriter out{"small.safetensors", {{"wte", Element::f32, {199, 48}}}};
///     out.write("wte", view), out.commit();
///
/// A file is checked whole when it is opened: every byte of its data belongs to exactly one tensor. Bytes are little-endian,
/// as the format and all our machines have them.
#pragma once

#include <dsx/io/atomic_file.hpp>
#include <dsx/tensor/view.hpp>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace dsx {

/// What a tensor is to be, for writing.
struct TensorSpec {
  std::string name;
  Element element = Element::f32;
  std::vector<Extent> dims;
};

/// A tensor in a file.
struct TensorEntry {
  std::string name;
  std::string dtype;               ///< as the file spells it: "F32"
  std::optional<Element> element;  ///< none where dsx has no such element (F8_E4M3): listed, given as bytes, not converted
  std::vector<Extent> dims;
  Range bytes;  ///< in the file's data
  Extent size() const;
};

using Metadata = std::vector<std::pair<std::string, std::string>>;

/// Which part of a tensor is read, and how it is turned.
struct TensorPart {
  static constexpr Range everything{0, Extent(-1)};
  Range rows = everything;  ///< of the first dim, as stored
  bool transposed = false;  ///< of a matrix: the view's rows are the columns of what is read
};

/// One file, mapped into memory, read only. Copies share the mapping.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& file);
  /// Of bytes that the caller keeps; `name` stands for them in messages.
  SafetensorsFile(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const { return name_; }
  /// In the order of their bytes.
  const std::vector<TensorEntry>& tensors() const { return tensors_; }
  const Metadata& metadata() const { return metadata_; }
  bool contains(std::string_view tensor) const { return find(tensor) != nullptr; }
  /// dsx-E625 if there is no such tensor.
  const TensorEntry& entry(std::string_view tensor) const;
  /// As stored; valid while this file or a copy of it lives. Not aligned.
  std::span<const std::byte> bytes(std::string_view tensor) const;
  /// f32, f64, bf16 and f16 become f32, f64 or bf16; others are copied as they are. The view's rows are a product of the first
  /// dims (a matrix [r, c] fills r x c, 1 x rc or rc x 1): dsx-E626. A view without data is only checked.
  void copy_to(std::string_view tensor, const View& view, const TensorPart& part = {}) const;
  /// A range of elements in stored order, whatever the dims are.
  void copy_elements(std::string_view tensor, Range elements, const View& view) const;

 private:
  void read_header();
  const TensorEntry* find(std::string_view tensor) const;

  std::string name_;
  std::shared_ptr<const void> mapping_;
  std::span<const std::byte> data_;
  std::vector<TensorEntry> tensors_;
  std::vector<std::uint32_t> by_name_;
  Metadata metadata_;
};

/// A folder with model.safetensors, or with model.safetensors.index.json and the shards it names; or one file.
class SafetensorsSet {
 public:
  explicit SafetensorsSet(const std::filesystem::path& folder_or_file);

  const std::string& name() const { return name_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  /// All shards' tensors, sorted by name.
  std::vector<std::string> names() const;
  bool contains(std::string_view tensor) const;
  const TensorEntry& entry(std::string_view tensor) const { return file_of(tensor).entry(tensor); }
  std::span<const std::byte> bytes(std::string_view tensor) const { return file_of(tensor).bytes(tensor); }
  void copy_to(std::string_view tensor, const View& view, const TensorPart& part = {}) const { file_of(tensor).copy_to(tensor, view, part); }
  void copy_elements(std::string_view tensor, Range elements, const View& view) const { file_of(tensor).copy_elements(tensor, elements, view); }

 private:
  const SafetensorsFile& file_of(std::string_view tensor) const;
  void index_files();

  std::string name_;
  std::vector<SafetensorsFile> files_;
  std::vector<std::pair<std::string, std::uint32_t>> by_name_;  // which file
};

/// Writes one file, tensor after tensor, holding none: byte by byte what Hugging Face's library writes for the same tensors.
class SafetensorsWriter {
 public:
  /// Writes the header. The file appears at commit().
  SafetensorsWriter(const std::filesystem::path& file, const std::vector<TensorSpec>& tensors, const Metadata& metadata = {{"format", "pt"}});

  std::string file_name() const { return file_.path().filename().string(); }
  /// The order in which tensors have to be written: by element, then by name.
  const std::vector<TensorSpec>& order() const { return tensors_; }
  /// The whole of the next tensor or its next piece; dsx-E627 out of order or beyond its end.
  void write(std::string_view tensor, std::span<const std::byte> bytes);
  /// Converts f32, f64 and bf16 among each other. Transposed: the whole tensor, as the view turned over.
  void write(std::string_view tensor, const View& view, bool transposed = false);
  /// dsx-E627 if a tensor is missing or not complete.
  void commit();

 private:
  AtomicFile file_;
  std::vector<TensorSpec> tensors_;
  Extent current_ = 0, filled_ = 0;  // bytes of the current tensor
};

struct ShardOptions {
  Extent largest = 5'000'000'000;  ///< bytes of tensors in a shard; a larger tensor has a shard of its own
  Metadata metadata = {{"format", "pt"}};
};

/// Writes model.safetensors into a folder, or shards and their index if one file would be too large.
class SafetensorsSetWriter {
 public:
  /// Shards take the tensors in the order given.
  SafetensorsSetWriter(const std::filesystem::path& folder, const std::vector<TensorSpec>& tensors, const ShardOptions& options = {});

  /// The order in which tensors have to be written.
  std::vector<TensorSpec> order() const;
  void write(std::string_view tensor, std::span<const std::byte> bytes) { shard_of(tensor).write(tensor, bytes); }
  void write(std::string_view tensor, const View& view, bool transposed = false) { shard_of(tensor).write(tensor, view, transposed); }
  /// All shards, then the index, then removes what would be read in their place.
  void commit();

 private:
  SafetensorsWriter& shard_of(std::string_view tensor);

  std::filesystem::path folder_;
  std::vector<SafetensorsWriter> shards_;
  std::vector<std::pair<std::string, std::uint32_t>> shard_by_name_;
};

}  // namespace dsx
