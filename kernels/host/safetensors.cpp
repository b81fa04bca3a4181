// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The checks, conversions and header text behind io/safetensors.hpp.
///
///     [8 bytes: n][n bytes: {"wte":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}   ][data]
///
/// The writer pads the header with spaces to a multiple of 8, so that data of any element are aligned.
#include <dsx/core/error.hpp>
#include <dsx/io/json.hpp>
#include <dsx/io/safetensors.hpp>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <tuple>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace dsx {
namespace fs = std::filesystem;

namespace {

/// Hugging Face's reader refuses longer headers too.
constexpr Extent longest_header = 100'000'000;

struct Dtype {
  std::string_view name;
  Extent bits;
  std::optional<Element> element;
};

/// In the order in which the Hugging Face library writes tensors.
constexpr Dtype dtypes[] = {{"U64", 64, Element::u64},
                            {"I64", 64, Element::i64},
                            {"F64", 64, Element::f64},
                            {"C64", 64, {}},
                            {"F32", 32, Element::f32},
                            {"U32", 32, Element::u32},
                            {"I32", 32, Element::i32},
                            {"BF16", 16, Element::bf16},
                            {"F16", 16, Element::f16},
                            {"U16", 16, Element::u16},
                            {"I16", 16, Element::i16},
                            {"F8_E5M2FNUZ", 8, {}},
                            {"F8_E4M3FNUZ", 8, {}},
                            {"F8_E8M0", 8, {}},
                            {"F8_E4M3", 8, {}},
                            {"F8_E5M2", 8, {}},
                            {"I8", 8, Element::i8},
                            {"U8", 8, Element::u8},
                            {"F6_E3M2", 6, {}},
                            {"F6_E2M3", 6, {}},
                            {"F4", 4, {}},
                            {"BOOL", 8, Element::boolean}};

const Dtype& dtype_of(Element element) {
  return *std::find_if(std::begin(dtypes), std::end(dtypes), [&](const Dtype& d) { return d.element == element; });
}

std::string shape_text(const std::vector<Extent>& dims) {
  std::string text = "[";
  for (const Extent dim : dims) append(text, text.size() > 1 ? "," : ""), append(text, dim);
  return text + ']';
}

std::string range_text(Range r) { return concat('[', r.begin, ", ", r.end, ')'); }

/// The bytes that `dims` take; nothing if they are no whole number of bytes or more than 64 bits count.
std::optional<Extent> bytes_for(const std::vector<Extent>& dims, Extent bits) {
  Extent product = bits;
  for (const Extent dim : dims)
    if (__builtin_mul_overflow(product, dim, &product)) return {};
  if (product % 8 != 0) return {};
  return product / 8;
}

struct Half {
  std::uint16_t bits;
  operator float() const {
    const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
    const float magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                            : exponent     ? std::ldexp(float(mantissa + 1024), exponent - 25)
                                           : std::ldexp(float(mantissa), -24);
    return bits >> 15 ? -magnitude : magnitude;
  }
};

/// Calls f with a zero of the type that the element is; of those that convert into each other. False for the others.
template <class F>
bool with_real(Element element, F f) {
  switch (element) {
    case Element::f32:
      return f(float{}), true;
    case Element::f64:
      return f(double{}), true;
    case Element::bf16:
      return f(bf16{}), true;
    case Element::f16:
      return f(Half{}), true;
    default:
      return false;
  }
}

bool computable(Element element) { return element == Element::f32 || element == Element::f64 || element == Element::bf16; }

bool converts(Element from, Element to) { return from == to || (computable(to) && (computable(from) || from == Element::f16)); }

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// Copies a matrix of r x c elements, turned over or not, from element to element. Neither side need be aligned.
void convert(const std::byte* from, Element source, std::byte* to, Element target, Shape shape, bool transposed) {
  const Extent from_size = bytes_of(source), to_size = bytes_of(target);
  if (source == target && !transposed) {
    if (shape.size() > 0) std::memcpy(to, from, shape.size() * from_size);
    return;
  }
  const auto each = [&](auto copy_one) {
    if (!transposed) {
      for (Extent i = 0; i < shape.size(); ++i) copy_one(from + i * from_size, to + i * to_size);
      return;
    }
    constexpr Extent tile = 32;  // both sides of a tile stay in the cache
    for (Extent r = 0; r < shape.rows; r += tile)
      for (Extent c = 0; c < shape.columns; c += tile)
        for (Extent i = r; i < std::min(r + tile, shape.rows); ++i)
          for (Extent j = c; j < std::min(c + tile, shape.columns); ++j)
            copy_one(from + (i * shape.columns + j) * from_size, to + (j * shape.rows + i) * to_size);
  };
  if (source == target) {
    each([&](const std::byte* f, std::byte* t) { std::memcpy(t, f, from_size); });
    return;
  }
  with_real(source, [&](auto from_zero) {
    with_real(target, [&](auto to_zero) {
      using From = decltype(from_zero);
      using To = decltype(to_zero);
      if constexpr (!std::is_same_v<To, Half>)
        each([](const std::byte* f, std::byte* t) {
          using Exact = std::conditional_t<std::is_same_v<From, double>, double, float>;
          const To value = To(Exact(load<From>(f)));
          std::memcpy(t, &value, sizeof value);
        });
    });
  });
}

void check_reachable(std::string_view name, const View& view) {
  if (view.place != Place::cpu || view.codec)
    fail<626>(name, " is copied from or to host memory, element by element; the view lies on another place or is packed");
}

/// A product of the first dims.
bool is_leading_product(Extent rows, const std::vector<Extent>& dims) {
  Extent product = 1;
  if (rows == product) return true;
  for (const Extent dim : dims)
    if (product *= dim; product == rows) return true;
  return false;
}

/// Lasts as long as the last pointer to it.
std::shared_ptr<const void> map_file(const fs::path& file, std::span<const std::byte>& bytes) {
  const auto refuse = [&](const char* what) { fail<601>("can't ", what, " '", file, "': ", std::strerror(errno), " (errno ", errno, ')'); };
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) refuse("open");
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } closer{descriptor};
  struct stat status{};
  if (::fstat(descriptor, &status) != 0) refuse("look at");
  if (!S_ISREG(status.st_mode)) fail<601>("can't map '", file, "': it is a folder or a device, not a file");
  const Extent size = Extent(status.st_size);
  if (size == 0) return {};
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (address == MAP_FAILED) refuse("map");
  bytes = {static_cast<const std::byte*>(address), size};
  return {address, [size](const void* p) { ::munmap(const_cast<void*>(p), size); }};
}

}  // namespace

Extent TensorEntry::size() const {
  Extent product = 1;
  for (const Extent dim : dims) product *= dim;
  return product;
}

SafetensorsFile::SafetensorsFile(const fs::path& file) : name_{file.string()} {
  mapping_ = map_file(file, data_);
  read_header();
}

SafetensorsFile::SafetensorsFile(std::span<const std::byte> bytes, std::string name) : name_{std::move(name)}, data_{bytes} { read_header(); }

void SafetensorsFile::read_header() {
  const Extent file_size = data_.size();
  if (file_size < 8) fail<620>(name_, " is ", file_size, " bytes long; a safetensors file begins with the 8 bytes of its header's length");
  const Extent length = load<std::uint64_t>(data_.data());
  if (length > longest_header) fail<620>(name_, " says that its header is ", length, " bytes long; at most ", longest_header, " are read");
  if (length > file_size - 8)
    fail<620>(name_, " says that its header is ", length, " bytes long, but has ", file_size - 8, " bytes after the length");
  const std::string_view text{reinterpret_cast<const char*>(data_.data()) + 8, length};
  data_ = data_.subspan(8 + length);

  const Json header = Json::parse(text, name_);
  if (header.kind() != Json::Kind::object || text.front() != '{')
    fail<621>(name_, " has a header that isn't one JSON object, beginning at its first byte");
  for (const auto& [tensor, info] : header.members()) {
    if (tensor == "__metadata__") {
      for (const auto& [key, value] : info.members()) metadata_.emplace_back(key, value.text());
      continue;
    }
    TensorEntry entry{tensor, info["dtype"].text(), {}, {}, {}};
    const auto dtype = std::find_if(std::begin(dtypes), std::end(dtypes), [&](const Dtype& d) { return d.name == entry.dtype; });
    if (dtype == std::end(dtypes)) fail<624>(name_, ": tensor \"", tensor, "\" has the unknown dtype \"", entry.dtype, '"');
    entry.element = dtype->element;
    for (const Json& dim : info["shape"].items()) entry.dims.push_back(dim.extent());
    const Json offsets = info["data_offsets"];
    if (offsets.items().size() != 2) fail<621>(offsets.where(), " has ", offsets.size(), " numbers, not a begin and an end");
    entry.bytes = {offsets[0].extent(), offsets[1].extent()};
    if (entry.bytes.end < entry.bytes.begin) fail<622>(name_, ": tensor \"", tensor, "\" ends before it begins: bytes ", range_text(entry.bytes));
    if (entry.bytes.end > data_.size())
      fail<620>(name_, ": tensor \"", tensor, "\" has the bytes ", range_text(entry.bytes), ", but the file has only ", data_.size(),
                " bytes of data: cut short?");
    const auto needed = bytes_for(entry.dims, dtype->bits);
    if (!needed)
      fail<623>(name_, ": tensor \"", tensor, "\": the shape ", shape_text(entry.dims), " of ", entry.dtype, " has no size in bytes of 64 bits");
    if (*needed != entry.bytes.size())
      fail<623>(name_, ": tensor \"", tensor, "\": ", shape_text(entry.dims), " of ", entry.dtype, " takes ", *needed, " bytes, its offsets ",
                range_text(entry.bytes), " hold ", entry.bytes.size());
    tensors_.push_back(std::move(entry));
  }

  std::sort(tensors_.begin(), tensors_.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.bytes.begin, a.bytes.end, a.name) < std::tie(b.bytes.begin, b.bytes.end, b.name);
  });
  Extent end = 0;
  for (const TensorEntry& entry : tensors_) {
    if (entry.bytes.begin != end)
      fail<622>(name_, ": tensor \"", entry.name, "\" has the bytes ", range_text(entry.bytes), ", but the one before it ends at ", end,
                entry.bytes.begin < end ? ": they overlap" : ": a hole");
    end = entry.bytes.end;
  }
  if (end != data_.size()) fail<622>(name_, ": the last tensor ends at byte ", end, ", the data at ", data_.size(), ": a hole");

  by_name_.resize(tensors_.size());
  for (std::uint32_t i = 0; i < by_name_.size(); ++i) by_name_[i] = i;
  std::sort(by_name_.begin(), by_name_.end(), [&](auto a, auto b) { return tensors_[a].name < tensors_[b].name; });
}

const TensorEntry* SafetensorsFile::find(std::string_view tensor) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), tensor, [&](auto i, std::string_view n) { return tensors_[i].name < n; });
  return at != by_name_.end() && tensors_[*at].name == tensor ? &tensors_[*at] : nullptr;
}

const TensorEntry& SafetensorsFile::entry(std::string_view tensor) const {
  const TensorEntry* found = find(tensor);
  if (!found) fail<625>(name_, " has no tensor \"", tensor, "\" among its ", tensors_.size());
  return *found;
}

std::span<const std::byte> SafetensorsFile::bytes(std::string_view tensor) const {
  const Range r = entry(tensor).bytes;
  return data_.subspan(r.begin, r.size());
}

namespace {

Element readable(const std::string& file, const TensorEntry& entry, const View& view) {
  const std::string what = concat(file, ": tensor \"", entry.name, '"');
  check_reachable(what, view);
  if (!entry.element) fail<624>(what, " has the dtype ", entry.dtype, ", which dsx doesn't convert");
  if (!converts(*entry.element, view.element)) fail<626>(what, " of ", entry.dtype, " can't become ", name_of(view.element));
  return *entry.element;
}

}  // namespace

void SafetensorsFile::copy_to(std::string_view tensor, const View& view, const TensorPart& part) const {
  const TensorEntry& from = entry(tensor);
  const Element element = readable(name_, from, view);
  std::vector<Extent> dims = from.dims;
  Extent first_row = 0;
  if (part.rows != TensorPart::everything) {
    if (dims.empty() || part.rows.begin > part.rows.end || part.rows.end > dims[0])
      fail<626>(name_, ": tensor \"", tensor, "\" of shape ", shape_text(from.dims), " has no rows ", range_text(part.rows));
    first_row = part.rows.begin;
    dims[0] = part.rows.size();
  }
  const Extent size = bytes_for(dims, 8).value();
  const bool matrix = dims.size() == 2;
  const bool fits =
      part.transposed ? matrix && view.shape == Shape{dims[1], dims[0]} : view.size() == size && is_leading_product(view.shape.rows, dims);
  if (!fits)
    fail<626>(name_, ": tensor \"", tensor, "\" of shape ", shape_text(dims), part.transposed ? ", turned over," : "", " doesn't fill a view of ",
              view.shape.rows, " x ", view.shape.columns);
  if (!view.data || size == 0) return;
  const Extent row = dims.empty() ? 0 : size / dims.front();
  const Extent offset = from.bytes.begin + first_row * row * bytes_of(element);
  const Shape shape = part.transposed ? Shape{dims[0], dims[1]} : view.shape;
  convert(data_.data() + offset, element, view.pointer<std::byte>(), view.element, shape, part.transposed);
}

void SafetensorsFile::copy_elements(std::string_view tensor, Range elements, const View& view) const {
  const TensorEntry& from = entry(tensor);
  const Element element = readable(name_, from, view);
  if (elements.begin > elements.end || elements.end > from.size() || elements.size() != view.size())
    fail<626>(name_, ": elements ", range_text(elements), " of tensor \"", tensor, "\" of ", from.size(), " don't fill a view of ", view.size());
  if (!view.data || view.size() == 0) return;
  convert(data_.data() + from.bytes.begin + elements.begin * bytes_of(element), element, view.pointer<std::byte>(), view.element, view.shape, false);
}

SafetensorsSet::SafetensorsSet(const fs::path& folder_or_file) : name_{folder_or_file.string()} {
  std::error_code unreadable;  // then the file is tried, and says why it can't be opened
  const fs::path whole = folder_or_file / "model.safetensors", index = folder_or_file / "model.safetensors.index.json";
  const bool folder = fs::is_directory(folder_or_file, unreadable);
  if (!folder || fs::exists(whole, unreadable)) {
    files_.emplace_back(folder ? whole : folder_or_file);
    index_files();
    return;
  }
  if (!fs::exists(index, unreadable)) fail<601>("'", folder_or_file, "' has neither model.safetensors nor model.safetensors.index.json");

  const std::vector<Json::Member> listed = Json::parse(read_file(index), index.string())["weight_map"].members();
  std::vector<std::string> shards;
  for (const auto& [tensor, shard] : listed) shards.push_back(shard.text());
  std::sort(shards.begin(), shards.end());
  shards.erase(std::unique(shards.begin(), shards.end()), shards.end());
  for (const std::string& shard : shards) {
    if (shard.empty() || shard == ".." || shard == "." || shard.find('/') != shard.npos)
      fail<628>(index, " names the shard \"", shard, "\", which is no file name of this folder");
    if (!fs::exists(folder_or_file / shard, unreadable)) fail<628>(index, " names the shard \"", shard, "\", which is missing");
    files_.emplace_back(folder_or_file / shard);
  }
  index_files();
  for (const auto& [tensor, shard] : listed) {
    const auto file = std::lower_bound(shards.begin(), shards.end(), shard.text()) - shards.begin();
    if (!files_[Extent(file)].contains(tensor)) fail<628>(index, " says that tensor \"", tensor, "\" is in ", shard.text(), ", but it isn't");
  }
}

void SafetensorsSet::index_files() {
  for (std::uint32_t i = 0; i < files_.size(); ++i)
    for (const TensorEntry& entry : files_[i].tensors()) by_name_.emplace_back(entry.name, i);
  std::sort(by_name_.begin(), by_name_.end());
  const auto twice = std::adjacent_find(by_name_.begin(), by_name_.end(), [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twice != by_name_.end())
    fail<628>("tensor \"", twice->first, "\" is both in ", files_[twice->second].name(), " and in ", files_[(twice + 1)->second].name());
}

std::vector<std::string> SafetensorsSet::names() const {
  std::vector<std::string> names;
  names.reserve(by_name_.size());
  for (const auto& [name, file] : by_name_) names.emplace_back(name);
  return names;
}

namespace {

/// The index that stands beside a name in a sorted list of pairs.
template <class Pairs>
const std::uint32_t* look_up(const Pairs& pairs, std::string_view name) {
  const auto at = std::lower_bound(pairs.begin(), pairs.end(), name, [](const auto& pair, std::string_view n) { return pair.first < n; });
  return at != pairs.end() && at->first == name ? &at->second : nullptr;
}

}  // namespace

bool SafetensorsSet::contains(std::string_view tensor) const { return look_up(by_name_, tensor) != nullptr; }

const SafetensorsFile& SafetensorsSet::file_of(std::string_view tensor) const {
  const std::uint32_t* file = look_up(by_name_, tensor);
  if (!file) fail<625>(name_, " has no tensor \"", tensor, "\" among its ", by_name_.size());
  return files_[*file];
}

namespace {

Extent bytes_of(const TensorSpec& spec) {
  const auto bytes = bytes_for(spec.dims, 8 * dsx::bytes_of(spec.element));
  if (!bytes) fail<623>("tensor \"", spec.name, "\" of shape ", shape_text(spec.dims), " is too large");
  return *bytes;
}

Extent size_of(const TensorSpec& spec) { return bytes_of(spec) / dsx::bytes_of(spec.element); }

void remove_file(const fs::path& file) {
  std::error_code error;
  fs::remove(file, error);
  if (error) fail<602>("can't remove '", file, "', which is out of date: ", error.message());
}

std::string header_text(const std::vector<TensorSpec>& tensors, const Metadata& metadata) {
  std::string text = "{";
  const auto member = [&](std::string_view key, const std::string& value) {
    text += concat(text.size() > 1 ? "," : "", Json{key}.dump(), ':', value);
  };
  if (!metadata.empty()) {
    std::vector<Json::Member> members;
    for (const auto& [key, value] : metadata) members.push_back({key, value});
    member("__metadata__", Json::object(members).dump());
  }
  Extent offset = 0;
  for (const TensorSpec& tensor : tensors) {
    const Extent end = offset + bytes_of(tensor);
    member(tensor.name, concat(R"({"dtype":")", dtype_of(tensor.element).name, R"(","shape":)", shape_text(tensor.dims), R"(,"data_offsets":[)",
                               offset, ',', end, "]}"));
    offset = end;
  }
  text += '}';
  text.resize(round_up(text.size(), 8), ' ');
  return text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const fs::path& file, const std::vector<TensorSpec>& tensors, const Metadata& metadata)
    : file_{file}, tensors_{tensors} {
  std::sort(tensors_.begin(), tensors_.end(), [](const TensorSpec& a, const TensorSpec& b) {
    return std::pair<const Dtype*, std::string_view>{&dtype_of(a.element), a.name} <
           std::pair<const Dtype*, std::string_view>{&dtype_of(b.element), b.name};
  });
  std::vector<std::string_view> names{"__metadata__"};
  for (const TensorSpec& tensor : tensors_) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    fail<627>("two tensors of '", file, "' have the name \"", *twice, "\"", *twice == "__metadata__" ? ", which means the metadata" : "");
  const std::string header = header_text(tensors_, metadata);
  if (header.size() > longest_header)
    fail<620>("the header of '", file, "' would be ", header.size(), " bytes long; at most ", longest_header, " are read");
  const std::uint64_t length = header.size();
  file_.write(std::as_bytes(std::span{&length, 1}));
  file_.write(header);
}

void SafetensorsWriter::write(std::string_view tensor, std::span<const std::byte> bytes) {
  while (current_ < tensors_.size() && tensors_[current_].name != tensor && filled_ == bytes_of(tensors_[current_])) ++current_, filled_ = 0;
  if (current_ == tensors_.size() || tensors_[current_].name != tensor)
    fail<627>("'", file_.path(), "': tensor \"", tensor, "\" was written where ",
              current_ == tensors_.size() ? std::string{"no tensor is left"}
                                          : concat("byte ", filled_, " of \"", tensors_[current_].name, "\" comes next"));
  const Extent size = bytes_of(tensors_[current_]);
  if (bytes.size() > size - filled_)
    fail<627>("'", file_.path(), "': ", bytes.size(), " bytes were written at byte ", filled_, " of tensor \"", tensor, "\", which has ", size);
  file_.write(bytes);
  filled_ += bytes.size();
}

void SafetensorsWriter::write(std::string_view tensor, const View& view, bool transposed) {
  const auto spec = std::find_if(tensors_.begin(), tensors_.end(), [&](const TensorSpec& t) { return t.name == tensor; });
  if (spec == tensors_.end()) fail<627>("'", file_.path(), "' was begun without a tensor \"", tensor, '"');
  check_reachable(concat("'", file_.path(), "': tensor \"", tensor, '"'), view);
  if (!converts(view.element, spec->element) || !view.data)
    fail<626>("'", file_.path(), "': ", view.data ? name_of(view.element) : "a view without data", " can't be written as tensor \"", tensor, "\" of ",
              name_of(spec->element));
  const bool fits = !transposed || (spec->dims.size() == 2 && view.shape == Shape{spec->dims[1], spec->dims[0]});
  if (!fits || view.size() > size_of(*spec))
    fail<626>("'", file_.path(), "': a view of ", view.shape.rows, " x ", view.shape.columns, transposed ? ", turned over," : "",
              " doesn't fit tensor \"", tensor, "\" of shape ", shape_text(spec->dims));
  if (view.element == spec->element && !transposed) return write(tensor, std::span<const std::byte>{view.pointer<const std::byte>(), view.bytes()});

  std::vector<std::byte> block;
  if (transposed) {
    block.resize(view.size() * dsx::bytes_of(spec->element));
    convert(view.pointer<const std::byte>(), view.element, block.data(), spec->element, view.shape, true);
    return write(tensor, block);
  }
  constexpr Extent step = 1 << 18;
  for (Extent begin = 0; begin < view.size(); begin += step) {
    const View piece = view.part({begin, std::min(begin + step, view.size())});
    block.resize(piece.size() * dsx::bytes_of(spec->element));
    convert(piece.pointer<const std::byte>(), piece.element, block.data(), spec->element, piece.shape, false);
    write(tensor, block);
  }
}

void SafetensorsWriter::commit() {
  while (current_ < tensors_.size() && filled_ == bytes_of(tensors_[current_])) ++current_, filled_ = 0;
  if (current_ < tensors_.size())
    fail<627>("'", file_.path(), "' can't be finished: of tensor \"", tensors_[current_].name, "\" ", filled_, " of ", bytes_of(tensors_[current_]),
              " bytes were written");
  file_.commit();
}

SafetensorsSetWriter::SafetensorsSetWriter(const fs::path& folder, const std::vector<TensorSpec>& tensors, const ShardOptions& options)
    : folder_{folder} {
  // As Hugging Face cuts: in the given order, a shard ends before the tensor that would make it too large.
  std::vector<std::vector<TensorSpec>> parts;
  std::vector<TensorSpec> part;
  Extent filled = 0;
  for (const TensorSpec& tensor : tensors) {
    const Extent size = bytes_of(tensor);
    if (size > options.largest) {
      parts.push_back({tensor});
      continue;
    }
    if (size > options.largest - filled) parts.push_back(std::exchange(part, {})), filled = 0;
    part.push_back(tensor), filled += size;
  }
  if (!part.empty() || parts.empty()) parts.push_back(std::move(part));

  const auto digits = [](Extent n) { return concat(std::string(n < 10000 ? n < 1000 ? n < 100 ? n < 10 ? 4 : 3 : 2 : 1 : 0, '0'), n); };
  for (std::uint32_t i = 0; i < parts.size(); ++i) {
    const std::string file = parts.size() == 1 ? "model.safetensors" : concat("model-", digits(i + 1), "-of-", digits(parts.size()), ".safetensors");
    shards_.emplace_back(folder_ / file, parts[i], options.metadata);
    for (const TensorSpec& tensor : parts[i]) shard_by_name_.emplace_back(tensor.name, i);
  }
  std::sort(shard_by_name_.begin(), shard_by_name_.end());
  const auto twice =
      std::adjacent_find(shard_by_name_.begin(), shard_by_name_.end(), [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twice != shard_by_name_.end()) fail<627>("two tensors of '", folder_, "' have the name \"", twice->first, '"');
}

std::vector<TensorSpec> SafetensorsSetWriter::order() const {
  std::vector<TensorSpec> order;
  for (const SafetensorsWriter& shard : shards_) order.insert(order.end(), shard.order().begin(), shard.order().end());
  return order;
}

SafetensorsWriter& SafetensorsSetWriter::shard_of(std::string_view tensor) {
  const std::uint32_t* shard = look_up(shard_by_name_, tensor);
  if (!shard) fail<627>("'", folder_, "' was begun without a tensor \"", tensor, '"');
  return shards_[*shard];
}

void SafetensorsSetWriter::commit() {
  for (SafetensorsWriter& shard : shards_) shard.commit();
  const fs::path whole = folder_ / "model.safetensors", index = folder_ / "model.safetensors.index.json";
  if (shards_.size() == 1) {
    remove_file(index);
    return;
  }
  Extent elements = 0, bytes = 0;
  for (const TensorSpec& tensor : order()) elements += size_of(tensor), bytes += bytes_of(tensor);
  std::vector<Json::Member> map;
  for (const auto& [tensor, shard] : shard_by_name_) map.push_back({tensor, shards_[shard].file_name()});
  const Json whole_index =
      Json::object({{"metadata", Json::object({{"total_parameters", elements}, {"total_size", bytes}})}, {"weight_map", Json::object(map)}});
  write_file(index, whole_index.dump(2) + '\n');
  remove_file(whole);  // it would be read instead of the shards
}

}  // namespace dsx
