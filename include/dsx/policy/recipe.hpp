// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A recipe holds one policy a slot, in any order; a slot that isn't named has its identity.
///
///     constexpr Recipe recipe{ZeRO<3>{}, GPipe{}, Bf16{}};
///     recipe.get<ShardingSlot>().residency(info, mesh);
///
/// A policy that can't stand beside another says so itself (exclusion.hpp). For types the compiler refuses the pair, for policies
/// chosen at run time the recipe's constructor does: dsx-E107.
#pragma once

#include <dsx/policy/attention_exchange.hpp>
#include <dsx/policy/exclusion.hpp>
#include <dsx/policy/offload.hpp>
#include <dsx/policy/precision.hpp>
#include <dsx/policy/quantizer.hpp>
#include <dsx/policy/recompute.hpp>
#include <dsx/policy/schedule.hpp>
#include <dsx/policy/sharding.hpp>
#include <dsx/policy/summation.hpp>

#include <algorithm>
#include <array>
#include <tuple>

namespace dsx {

/// The policy of a slot that isn't named, and the type that holds any policy of the slot.
template <class Slot> struct Identity;
template <> struct Identity<ShardingSlot> { using type = Replicate; using any = AnySharding; };
template <> struct Identity<ScheduleSlot> { using type = SingleStage; using any = AnySchedule; };
template <> struct Identity<OffloadSlot> { using type = Resident; using any = AnyOffload; };
template <> struct Identity<QuantizerSlot> { using type = FullPrecision; using any = AnyQuantizer; };
template <> struct Identity<PrecisionSlot> { using type = Fp32; using any = AnyPrecision; };
template <> struct Identity<RecomputeSlot> { using type = KeepActivations; using any = AnyRecompute; };
template <> struct Identity<AttentionSlot> { using type = LocalAttention; using any = AnyAttention; };
template <> struct Identity<SummationSlot> { using type = Fast; using any = AnySummation; };

template <class... S> struct SlotList {};
using Slots = SlotList<ShardingSlot, ScheduleSlot, OffloadSlot, QuantizerSlot, PrecisionSlot, RecomputeSlot, AttentionSlot, SummationSlot>;

/// A policy names the slot it fills.
template <class P>
concept Policy = requires {
  typename P::Slot;
  typename Identity<typename P::Slot>::type;
};

namespace detail {

template <class Slot, class P>
inline constexpr bool fills = false;
template <class Slot, Policy P>
inline constexpr bool fills<Slot, P> = std::same_as<typename P::Slot, Slot>;
template <class Slot, class... Policies>
inline constexpr int filling = (int{fills<Slot, Policies>} + ... + 0);

template <class P, class... All>
inline constexpr int rivals = 1;  // policies in P's slot
template <Policy P, class... All>
inline constexpr int rivals<P, All...> = filling<typename P::Slot, All...>;

/// Of all policies of a recipe: those that it names, and the identities of the other slots.
template <class... Policies>
struct Tags {
  static constexpr std::size_t given = sizeof...(Policies);
  template <class... S>
  static constexpr auto all(SlotList<S...>, const std::array<PolicyTag, given>& named) {
    std::array<PolicyTag, given + sizeof...(S)> tags{};
    const PolicyTag others[]{filling<S, Policies...> == 0 ? tag_of<typename Identity<S>::type>() : PolicyTag{}...};
    std::copy(std::begin(others), std::end(others), std::copy(named.begin(), named.end(), tags.begin()));
    return tags;
  }
  static constexpr bool conflict() {
    if constexpr ((Policy<Policies> && ...)) return conflict_in(all(Slots{}, {tag_of<Policies>()...})).why != nullptr;
    else return false;
  }
};

}  // namespace detail

template <class... Policies>
class Recipe {
  static constexpr bool known = (Policy<Policies> && ...);
  static constexpr bool distinct = ((detail::rivals<Policies, Policies...> == 1) && ...);
  static_assert(known, "dsx-E106: something in this recipe is no policy: a policy names its slot, as in `using Slot = dsx::ShardingSlot;`");
  static_assert(!known || distinct, "dsx-E102: two policies of this recipe fill the same slot; keep one");
  static_assert(!known || !distinct || !detail::Tags<Policies...>::conflict(),
                "dsx-E107: two policies of this recipe exclude each other; drop one (`excludes` of one of them says why)");

 public:
  constexpr Recipe(Policies... policies) : policies_{policies...} {
    if constexpr ((std::derived_from<Policies, AnyPolicy> || ...)) {
      const auto tags = detail::Tags<Policies...>::all(Slots{}, {tag_of(policies)...});
      if (const Conflict c = conflict_in(tags); c.why)
        fail<107>("the ", tags[c.by].slot, " of this recipe excludes its ", tags[c.other].slot, ": ", c.why, "; drop one of the two");
    }
  }

  template <class Slot>
  constexpr auto get() const {
    if constexpr (detail::filling<Slot, Policies...> == 0) return typename Identity<Slot>::type{};
    else return std::get<index<Slot>()>(policies_);
  }

 private:
  template <class Slot>
  static constexpr std::size_t index() {
    std::size_t i = 0, found = 0;
    ((detail::fills<Slot, Policies> ? found = i++ : i++), ...);
    return found;
  }
  std::tuple<Policies...> policies_;
};
template <class... P>
Recipe(P...) -> Recipe<P...>;

namespace detail {

template <class List>
struct Erased;
template <class... S>
struct Erased<SlotList<S...>> {
  using Policies = std::tuple<typename Identity<S>::any...>;
  using Recipe = dsx::Recipe<typename Identity<S>::any...>;
  static Recipe of(const auto& recipe) { return {typename Identity<S>::any{recipe.template get<S>()}...}; }
};

}  // namespace detail

/// One policy a slot, chosen at run time.
using AnyPolicies = detail::Erased<Slots>::Policies;

/// A recipe whose policies are chosen at run time: from a command line, or one instantiation for many tests. It is made of policies
/// in any order, or of any other recipe.
class AnyRecipe : public detail::Erased<Slots>::Recipe {
  using Erased = detail::Erased<Slots>;

 public:
  template <Policy... P>
  AnyRecipe(P... policies) : AnyRecipe{dsx::Recipe<P...>{policies...}} {}
  template <class... P>
  AnyRecipe(const dsx::Recipe<P...>& recipe) : Erased::Recipe{Erased::of(recipe)} {}
  AnyRecipe(const AnyPolicies& policies) : Erased::Recipe{std::make_from_tuple<Erased::Recipe>(policies)} {}
};

}  // namespace dsx
