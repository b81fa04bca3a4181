// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What readers and writers of Hugging Face configurations share: numbers within bounds, element types in both spellings.
///
///     config.vocab_size = size_at(json, {"vocab_size"});
///     config.dtype = dtype_at(json);
#pragma once

#include <dsx/core/element.hpp>
#include <dsx/core/error.hpp>
#include <dsx/io/json.hpp>

#include <optional>
#include <utility>

namespace dsx::hf {

/// Anything larger is a broken file; the bytes of a matrix of two of these fit 64 bits.
inline constexpr Extent largest = Extent{1} << 28;

/// The number under the first of the names that the file has.
inline Extent size_at(const Json& config, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (!config.contains(name) || config[name].is_null()) continue;
    const Json value = config[name];
    if (value.kind() != Json::Kind::integer || value.number() < 1 || value.number() > double(largest))
      fail<636>(value.where(), " is ", value.dump(), ", not a whole number from 1 to ", largest);
    return value.extent();
  }
  fail<636>(config.where(), " has no ", *names.begin());
}

/// A real number in [low, high).
inline double real_at(const Json& config, const char* name, double otherwise, double low, double high) {
  const double value = config.number(name, otherwise);
  if (!(value >= low && value < high)) fail<636>(config[name].where(), " is ", value, ", not in [", low, ", ", high, ')');
  return value;
}

inline std::optional<Extent> token_at(const Json& config, const char* name) {
  if (!config.contains(name) || config[name].is_null()) return {};
  return config[name].extent();
}

/// `model`: who knows nothing else.
inline void expect(const Json& config, const char* name, bool value, std::string_view model) {
  if (config.boolean(name, value) != value)
    fail<637>(config[name].where(), " is ", value ? "false" : "true", "; dsx's ", model, " knows only ", value ? "true" : "false");
}

inline constexpr std::pair<std::string_view, Element> dtype_names[] = {
    {"float32", Element::f32}, {"float64", Element::f64}, {"bfloat16", Element::bf16}, {"float16", Element::f16}};

inline Element dtype_at(const Json& config) {
  const char* key = config.contains("dtype") ? "dtype" : "torch_dtype";
  std::string name = config.text(key, "float32");
  if (name.starts_with("torch.")) name.erase(0, 6);
  for (const auto& [known, element] : dtype_names)
    if (name == known) return element;
  fail<637>(config[key].where(), " is \"", name, "\"; dsx knows float32, float64, bfloat16 and float16");
}

inline void check_heads(Extent width, Extent heads, std::string_view where) {
  if (width % heads != 0) fail<307>(where, ": ", heads, " heads don't divide the width of ", width);
}

inline Json or_null(const std::optional<Extent>& value) { return value ? Json{*value} : Json{}; }

/// What a configuration calls an element; dsx-E637 if nothing.
inline std::string_view dtype_name(Element element, std::string_view model) {
  for (const auto& [name, known] : dtype_names)
    if (known == element) return name;
  fail<637>("a ", model, " of ", name_of(element), " can't be written");
}

}  // namespace dsx::hf
