// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Expansion and matching of weight names behind io/weight_names.hpp.
///
///     expand({{{"a.{i}.w", "h.{i}.w"}, {"a.{i}.b", "h.{i}.b"}}}, {{{'i', 2}}})
///     // a.0.w, a.0.b, a.1.w, a.1.b
#include <dsx/core/error.hpp>
#include <dsx/io/weight_names.hpp>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

namespace dsx {

namespace {

std::string braced(char letter) { return {'{', letter, '}'}; }

bool holds(const WeightName& name, char letter) { return name.ours.find(braced(letter)) != std::string::npos; }

std::string with_index(std::string text, char letter, Extent index) {
  for (std::size_t at; (at = text.find(braced(letter))) != text.npos;) text.replace(at, 3, std::to_string(index));
  return text;
}

/// Replaces the first index in each run of names that holds it, then the others inside.
void expand_into(std::vector<WeightName>& all, std::span<const WeightName> names, std::span<const NameIndex> indices) {
  if (indices.empty()) {
    all.insert(all.end(), names.begin(), names.end());
    return;
  }
  const auto [letter, count] = indices.front();
  const auto rest = indices.subspan(1);
  while (!names.empty()) {
    const bool indexed = holds(names.front(), letter);
    Extent length = 1;
    while (length < names.size() && holds(names[length], letter) == indexed) ++length;
    const auto run = names.first(length);
    names = names.subspan(length);
    if (!indexed) {
      expand_into(all, run, rest);
      continue;
    }
    for (Extent i = 0; i < count; ++i) {
      std::vector<WeightName> at_i(run.begin(), run.end());
      for (WeightName& name : at_i) name.ours = with_index(name.ours, letter, i), name.theirs = with_index(name.theirs, letter, i);
      expand_into(all, at_i, rest);
    }
  }
}

/// A number in brackets at the end of our name is that of a matrix.
void take_matrix(WeightName& name) {
  if (!name.ours.ends_with(']')) return;
  const std::size_t at = name.ours.rfind('[');
  name.matrix = std::stoi(name.ours.substr(at + 1));
  name.ours.erase(at);
}

/// {x} of the pattern takes any number.
bool matches(std::string_view pattern, std::string_view text) {
  while (!pattern.empty()) {
    if (pattern.size() >= 3 && pattern[0] == '{' && pattern[2] == '}') {
      const auto digits = std::min(text.find_first_not_of("0123456789"), text.size());
      if (digits == 0) return false;
      pattern.remove_prefix(3), text.remove_prefix(digits);
      continue;
    }
    if (text.empty() || pattern.front() != text.front()) return false;
    pattern.remove_prefix(1), text.remove_prefix(1);
  }
  return text.empty();
}

}  // namespace

std::vector<WeightName> expand(std::span<const NamePattern> table, std::span<const NameIndex> indices) {
  std::vector<WeightName> names, all;
  for (const NamePattern& pattern : table) {
    names.push_back({std::string{pattern.ours}, std::string{pattern.theirs}, pattern.transposed, pattern.piece});
    std::string ours{pattern.ours}, theirs{pattern.theirs};
    for (const NameIndex& index : indices) {
      const bool in_ours = ours.find(braced(index.letter)) != ours.npos, in_theirs = theirs.find(braced(index.letter)) != theirs.npos;
      if (in_ours != in_theirs) fail<629>("\"", ours, "\" and \"", theirs, "\" don't both have the index ", braced(index.letter));
      ours = with_index(ours, index.letter, 0), theirs = with_index(theirs, index.letter, 0);
    }
    if ((ours + theirs).find_first_of("{}") != std::string::npos)
      fail<629>("\"", pattern.ours, "\" and \"", pattern.theirs, "\" hold an index that is not given");
  }
  expand_into(all, names, indices);
  for (WeightName& name : all) take_matrix(name);
  return all;
}

std::vector<WeightName> find_weights(const SafetensorsSet& file, std::vector<WeightName> names, const WeightRules& rules) {
  const auto prefixed = [&](const WeightName& name) { return concat(rules.prefix, name.theirs); };
  const bool has_prefix = std::any_of(names.begin(), names.end(), [&](const WeightName& name) { return file.contains(prefixed(name)); });
  if (has_prefix)
    for (WeightName& name : names) name.theirs = prefixed(name);

  Extent absent = 0;
  const WeightName* first_absent = nullptr;
  std::set<std::string_view> known;
  for (const WeightName& name : names) {
    known.insert(name.theirs);
    if (!file.contains(name.theirs) && absent++ == 0) first_absent = &name;
  }
  if (first_absent)
    fail<629>(file.name(), " lacks ", absent, " of the model's ", names.size(), " weights, first \"", first_absent->theirs, "\" for ",
              first_absent->ours);

  for (const std::string& name : file.names()) {
    if (known.contains(name)) continue;
    std::string_view bare = name;
    if (bare.starts_with(rules.prefix)) bare.remove_prefix(rules.prefix.size());
    const bool ignored = std::any_of(rules.ignored.begin(), rules.ignored.end(),
                                     [&](std::string_view pattern) { return matches(pattern, bare) || matches(pattern, name); });
    if (!ignored) fail<629>(file.name(), " has the tensor \"", name, "\", for which the model has no place");
  }
  return names;
}

bool check_tied(const SafetensorsSet& file, std::string_view copy, std::string_view original) {
  if (!file.contains(copy)) return false;
  const TensorEntry &a = file.entry(copy), &b = file.entry(original);
  if (a.dtype != b.dtype || a.dims != b.dims)
    fail<630>(file.name(), ": \"", copy, "\" is tied to \"", original, "\", but has another shape or dtype (", a.size(), " of ", a.dtype, ", not ",
              b.size(), " of ", b.dtype, ')');
  const auto x = file.bytes(copy), y = file.bytes(original);
  const auto differs = std::mismatch(x.begin(), x.end(), y.begin()).first;
  if (differs != x.end())
    fail<630>(file.name(), ": \"", copy, "\" is tied to \"", original, "\", but differs from byte ", Extent(differs - x.begin()),
              " on: load it as a model with a head of its own");
  return true;
}

}  // namespace dsx
