// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A set of mesh axes. `data` is outer x inner; expert x expert_data cuts the ranks of data x sequence another way, and `expert_data`,
/// over which an expert has copies, is expert_outer x expert_inner.
///
///     within(Axes::inner, Axes::data)   // true
#pragma once

#include <string>

namespace dsx {

enum class Axes : unsigned {
  none = 0, outer = 1, inner = 2, data = 3, sequence = 4, tensor = 8, pipe = 16, expert = 32, expert_outer = 64, expert_inner = 128, expert_data = 192
};

constexpr Axes operator|(Axes a, Axes b) { return Axes(unsigned(a) | unsigned(b)); }
constexpr Axes operator&(Axes a, Axes b) { return Axes(unsigned(a) & unsigned(b)); }
constexpr Axes operator-(Axes a, Axes b) { return Axes(unsigned(a) & ~unsigned(b)); }
constexpr bool any(Axes a) { return a != Axes::none; }
constexpr bool within(Axes part, Axes whole) { return (part | whole) == whole; }

/// "data+tensor", for messages and reports.
inline std::string to_text(Axes axes) {
  if (!any(axes)) return "none";
  std::string text;
  const auto name = [&](Axes axis, const char* word) {
    if (!within(axis, axes)) return;
    if (!text.empty()) text += '+';
    text += word;
    axes = axes - axis;
  };
  name(Axes::data, "data"), name(Axes::outer, "outer"), name(Axes::inner, "inner"), name(Axes::sequence, "sequence");
  name(Axes::tensor, "tensor"), name(Axes::pipe, "pipe"), name(Axes::expert, "expert"), name(Axes::expert_data, "expert_data");
  name(Axes::expert_outer, "expert_outer"), name(Axes::expert_inner, "expert_inner");
  return text;
}

}  // namespace dsx
