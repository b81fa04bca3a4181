// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides in which order sums over ranks and micro-batches are taken.
///
///     Recipe{Fast{}}    // the identity: as they come in rank order, the partition left to the layout
///
/// Laws (tests/laws/summation_laws.hpp): it answers the same whenever it is asked; the same program gives the same bits twice; one
/// that fixes its grains gives them on every layout.
#pragma once

#include <dsx/policy/exclusion.hpp>

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

/// Any summation, chosen at run time.
class AnySummation : public AnyPolicy {
 public:
  using Slot = SummationSlot;
  AnySummation() : AnySummation{Fast{}} {}
  template <Summation P>
    requires(!std::same_as<P, AnySummation>)
  AnySummation(P policy) : AnyPolicy{tag_of<P, Slot>()}, fixed_grains_{policy.fixed_grains()} {}
  bool fixed_grains() const { return fixed_grains_; }

 private:
  bool fixed_grains_;
};
static_assert(Summation<Fast> && Summation<AnySummation>);

}  // namespace dsx

// dsx-policy: summation fast Fast{}
