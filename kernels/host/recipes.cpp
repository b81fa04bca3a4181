// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Reads recipes from command lines and lists them.
#include <dsx/recipes.hpp>

namespace dsx {

std::string list_of_recipes() {
  std::string list, slot;
  for (const RecipeName& r : recipe_names) {
    if (slot != r.slot) slot = r.slot, list += concat(list.empty() ? "" : "\n", slot, "\n");
    list += concat("  ", r.name, std::string(12 - r.name.size(), ' '), r.text, "\n");
  }
  return list + "\nOne name of each kind may be chosen, joined by +: zero2+1f1b+bf16\n";
}

RecipeChoice choose_recipe(std::string_view text, Extent stages) {
  RecipeChoice choice;
  std::vector<const RecipeName*> chosen;
  while (!text.empty()) {
    const std::string_view name = text.substr(0, text.find('+'));
    text.remove_prefix(std::min(text.size(), name.size() + 1));
    const RecipeName* found = nullptr;
    std::string known;
    for (const RecipeName& r : recipe_names) {
      if (r.name == name) found = &r;
      known += concat(known.empty() ? "" : ", ", r.name);
    }
    if (!found) fail<108>("no recipe is called \"", name, "\"; there are ", known, ", joined by +");
    for (const RecipeName* other : chosen)
      if (other->slot == found->slot) fail<102>("\"", other->name, "\" and \"", name, "\" both choose the ", found->slot, "; keep one");
    chosen.push_back(found);
    found->choose(choice);
  }
  const bool scheduled = std::any_of(chosen.begin(), chosen.end(), [](const RecipeName* r) { return r->slot == "schedule"; });
  if (!scheduled && stages > 1) choice.schedule = OneForwardOneBackward{};
  return choice;
}

}  // namespace dsx
