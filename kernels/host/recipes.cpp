// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Reads recipes from command lines and lists them.
#include <dsx/recipes.hpp>
#include <dsx/train/progress.hpp>

namespace dsx {

std::string list_of_recipes() {
  std::string list, slot;
  for (const RecipeName& r : recipe_names) {
    if (slot != r.tag.slot) slot = r.tag.slot, list += concat(list.empty() ? "" : "\n", slot, "\n");
    list += concat("  ", r.name, std::string(20 - r.name.size(), ' '), r.text, "\n");
  }
  list += "\nseveral at once\n";
  for (const RecipeBlend& b : recipe_blends) list += concat("  ", b.name, std::string(20 - b.name.size(), ' '), b.text, ": ", b.names, "\n");
  return list + "\nOne name of each kind may be chosen, joined by +: zero2+1f1b+bf16\n";
}

std::vector<std::string_view> recipe_words(std::string_view text) {
  std::vector<std::string_view> words;
  while (!text.empty()) {
    const std::string_view name = text.substr(0, text.find('+'));
    text.remove_prefix(std::min(text.size(), name.size() + 1));
    const auto blend = std::find_if(std::begin(recipe_blends), std::end(recipe_blends), [&](const RecipeBlend& b) { return b.name == name; });
    if (blend == std::end(recipe_blends)) words.push_back(name);
    else for (const std::string_view word : recipe_words(blend->names)) words.push_back(word);
  }
  return words;
}

AnyRecipe choose_recipe(std::string_view text, Extent stages, std::span<const RecipeName> table) {
  std::vector<RecipeName> chosen;
  std::vector<PolicyTag> tags;
  for (const std::string_view name : recipe_words(text)) {
    const RecipeName* found = nullptr;
    std::string known;
    for (const RecipeName& r : table) {
      if (r.name == name) found = &r;
      known += concat(known.empty() ? "" : ", ", r.name);
    }
    if (!found) fail<108>("no recipe is called \"", name, "\"; there are ", known, ", joined by +");
    for (const RecipeName& other : chosen)
      if (std::string_view{other.tag.slot} == found->tag.slot)
        fail<102>("\"", other.name, "\" and \"", name, "\" both choose the ", found->tag.slot, "; keep one");
    chosen.push_back(*found), tags.push_back(found->tag);
  }
  if (const Conflict c = conflict_in(tags); c.why)
    fail<107>("\"", chosen[c.by].name, "\" excludes \"", chosen[c.other].name, "\": ", c.why, "; drop one of the two");
  AnyPolicies policies;
  if (stages > 1) std::get<AnySchedule>(policies) = OneForwardOneBackward{};
  for (const RecipeName& r : chosen) r.choose(policies);
  return policies;
}

std::string costs_by_name(std::string_view recipe, const std::function<StepCost(std::string_view)>& plan) {
  const std::vector<std::string_view> words = recipe_words(recipe);
  const StepCost whole = plan(recipe);
  std::string text;
  const auto cell = [](const std::string& s) { return std::string(s.size() < 14 ? 14 - s.size() : 1, ' ') + s; };
  const auto change = [](double with, double without) {
    return with == without ? std::string{"0"} : concat(with > without ? "+" : "-", bytes_text(std::abs(with - without)));
  };
  for (Extent left_out = 0; left_out < words.size(); ++left_out) {
    std::string others;
    for (Extent i = 0; i < words.size(); ++i)
      if (i != left_out) others += concat(others.empty() ? "" : "+", words[i]);
    try {
      const StepCost without = plan(others);
      if (without.peak == whole.peak && without.wire == whole.wire) continue;
      text += concat("  ", words[left_out], std::string(words[left_out].size() < 22 ? 22 - words[left_out].size() : 1, ' '));
      for (Extent tier = 0; tier < whole.peak.size(); ++tier) text += cell(change(whole.peak[tier], without.peak[tier]));
      text += cell(change(whole.wire, without.wire)) + "\n";
    } catch (const Error&) {
    }
  }
  if (text.empty()) return text;
  std::string head = "each policy, against the same recipe without it\n" + std::string(24, ' ');
  for (const char* column : {"on the device", "on the host", "on the disk", "traffic"}) head += cell(column);
  return head + "\n" + text;
}

}  // namespace dsx
