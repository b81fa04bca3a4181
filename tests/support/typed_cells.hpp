// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Recipes of types, as few as there are policies in the fullest slot: row r holds the r-th type of each slot, from the start again where a
/// slot has fewer. Sums that no layout changes stand beside no quantizer (dsx-E125): a row that packs takes the identity's, and those
/// that don't take turns.
///
///     matrix::typed_cells<0, 2>();    // trains rows 0 and 1, as types and chosen at run time: the same bits
#pragma once

#include "matrix_model.hpp"

#include <doctest/doctest.h>

namespace matrix {

using Listed = decltype(listed::recipe_policies());
template <Extent i>
using Policy = decltype(std::get<i>(std::declval<Listed>()).policy);

/// Where the types of a slot stand in the list, each once.
template <class Slot>
inline constexpr auto places_of = []<std::size_t... i>(std::index_sequence<i...>) {
  const auto first_of_its_type = []<std::size_t j>() {
    Extent first = sizeof...(i);
    ((first = std::same_as<Policy<i>, Policy<j>> && i < first ? i : first), ...);
    return first == j;
  };
  std::array<Extent, sizeof...(i)> places{};
  Extent count = 0;
  ((std::same_as<typename Policy<i>::Slot, Slot> && first_of_its_type.template operator()<i>() ? places[count++] = i : 0), ...);
  return std::pair{places, count};
}(std::make_index_sequence<std::tuple_size_v<Listed>>{});

inline constexpr Extent typed_rows = []<class... S>(SlotList<S...>) { return std::max({places_of<S>.second...}); }(Slots{});
template <class Slot, Extent row>
inline constexpr Extent place_in_row = places_of<Slot>.first[row % places_of<Slot>.second];
template <Extent row>
inline constexpr Extent place_in_row<SummationSlot, row> = [] {
  constexpr auto sums = places_of<SummationSlot>;
  constexpr bool packs = !std::same_as<Policy<place_in_row<QuantizerSlot, row>>, FullPrecision>;
  return sums.first[packs ? 0 : (row / places_of<QuantizerSlot>.second + 1) % sums.second];
}();

template <Extent row, class... S>
auto typed_recipe(SlotList<S...>) {
  constexpr bool conflict = dsx::detail::Tags<Policy<place_in_row<S, row>>...>::conflict();
  static_assert(!conflict, "two policies of one row of types exclude each other: move a line `// dsx-policy:` of one of them");
  const auto list = listed::recipe_policies();
  return Recipe{std::get<place_in_row<S, row>>(list).policy...};
}

template <Extent row>
void typed_cell() {
  const auto recipe = typed_recipe<row>(Slots{});
  Setup setup = setup_of(identities());
  const AnyRecipe chosen = recipe;
  setup.policies = [&]<class... S>(SlotList<S...>) { return AnyPolicies{chosen.get<S>()...}; }(Slots{});
  setup.degrees = {.data = 2, .inner = 2, .pipe = chosen.get<ScheduleSlot>().tag().id == policy_id<SingleStage> ? 1UL : 2UL};
  const auto learner = learner_of(setup);
  const Run types = toy::train(cell_of(setup), recipe, 4, learner), same_chosen = toy::train(cell_of(setup), chosen, 4, learner);
  INFO("row ", row);
  CHECK_MESSAGE(types.complaints.empty(), toy::text_of(types.complaints));
  CHECK(toy::same(types, same_chosen));
}
template <Extent first, Extent last>
void typed_cells() {
  if constexpr (first < last) typed_cell<first>(), typed_cells<first + 1, last>();
}

}  // namespace matrix
