// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides in which order sums over ranks and micro-batches are taken.
///
///     Recipe{Fast{}}    // the identity: as they come in rank order, the partition left to the layout
#pragma once

#include <concepts>

namespace dsx {

struct SummationSlot {
  static constexpr const char* name = "summation";
};
template <class P>
concept Summation = requires(const P& p) {
  { p.fixed_grains() } -> std::same_as<bool>;  // whether everything is computed in the finest layout's grains
};

/// The identity.
struct Fast {
  using Slot = SummationSlot;
  constexpr bool fixed_grains() const { return false; }
};
static_assert(Summation<Fast>);

}  // namespace dsx
