// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Reads and writes degrees of parallelism.
#include <dsx/comm/mesh_text.hpp>

#include <charconv>

namespace dsx {
namespace {

struct Axis {
  std::string_view name;
  Extent Degrees::*degree;
};
constexpr Axis axes[] = {{"data", &Degrees::data}, {"inner", &Degrees::inner}, {"tensor", &Degrees::tensor}, {"pipe", &Degrees::pipe},
                         {"expert", &Degrees::expert}};

}  // namespace

Degrees parse_degrees(std::string_view text) {
  Degrees degrees;
  const std::string_view whole = text;
  std::string seen = ",";
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const std::size_t equals = std::min(item.find('='), item.size());
    const std::string_view name = item.substr(0, equals), value = equals < item.size() ? item.substr(equals + 1) : std::string_view{};
    if (seen.find(concat(",", name, ",")) != seen.npos) fail<312>("the mesh \"", whole, "\" gives the axis ", name, " twice");
    seen += concat(name, ",");
    if (name == "tokens") {
      if (value != "split" && value != "whole") fail<312>("the mesh \"", whole, "\" says tokens=", value, "; say tokens=split or tokens=whole");
      degrees.token_split = value == "split";
      continue;
    }
    const auto* axis = std::find_if(std::begin(axes), std::end(axes), [&](const Axis& a) { return a.name == name; });
    if (axis == std::end(axes))
      fail<312>("the mesh \"", whole, "\" has no axis \"", name, "\"; there are data, inner, tensor, pipe, expert and tokens=split");
    Extent number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc{} || end != value.data() + value.size() || number == 0 || number > 1'000'000)
      fail<312>("the mesh \"", whole, "\" gives the axis ", name, " \"", value, "\" ranks; a number from 1 on is needed");
    degrees.*axis->degree = number;
  }
  return degrees;
}

std::string to_text(const Degrees& degrees) {
  std::string text;
  for (const Axis& a : axes)
    if (degrees.*a.degree > 1) text += concat(text.empty() ? "" : ",", a.name, "=", degrees.*a.degree);
  if (degrees.token_split) text += concat(text.empty() ? "" : ",", "tokens=split");
  return text.empty() ? "data=1" : text;
}

}  // namespace dsx
