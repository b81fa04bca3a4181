// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides in which order sums over ranks and micro-batches are taken.
///
///     Recipe{Fast{}}            // the identity: as they come in rank order, the partition left to the layout
///     Recipe{Reproducible{}}    // the same bits over any data ranks x micro-batches that make as many grains
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

/// The same losses, norms and weights to the last bit on every layout of the same grains: micro-batches, of which a step has
/// (data ranks) x (micro-batches of each). Gradients are summed by one binary tree over the grains' numbers, losses and norms without
/// rounding (weights/grain_sums.hpp). Micro-batch j of data rank r is grain j x (data ranks) + r: whoever hands micro-batches to a trainer
/// keeps that order. Over the tensor axis bits are the same for the same degree only.
struct Reproducible {
  using Slot = SummationSlot;
  constexpr bool fixed_grains() const { return true; }
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
static_assert(Summation<Fast> && Summation<Reproducible> && Summation<AnySummation>);

}  // namespace dsx

// dsx-policy: summation fast Fast{}
// dsx-policy: summation reproducible Reproducible{}
