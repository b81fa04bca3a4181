// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A recipe holds one policy a slot, in any order; a slot that isn't named has its identity.
///
///     constexpr Recipe recipe{ZeRO<3>{}, GPipe{}, Bf16{}};
///     recipe.get<ShardingSlot>().residency(info, mesh);
///
/// A policy that can't stand beside another says so itself, in prose behind a number:
///     template <class Other> static constexpr bool excludes = std::same_as<Other, HpZ>;
#pragma once

#include <dsx/policy/attention_exchange.hpp>
#include <dsx/policy/offload.hpp>
#include <dsx/policy/precision.hpp>
#include <dsx/policy/quantizer.hpp>
#include <dsx/policy/recompute.hpp>
#include <dsx/policy/schedule.hpp>
#include <dsx/policy/sharding.hpp>
#include <dsx/policy/summation.hpp>

#include <tuple>

namespace dsx {

template <class Slot> struct Identity;
template <> struct Identity<ShardingSlot> { using type = Replicate; };
template <> struct Identity<ScheduleSlot> { using type = SingleStage; };
template <> struct Identity<OffloadSlot> { using type = Resident; };
template <> struct Identity<QuantizerSlot> { using type = FullPrecision; };
template <> struct Identity<PrecisionSlot> { using type = Fp32; };
template <> struct Identity<RecomputeSlot> { using type = KeepActivations; };
template <> struct Identity<SummationSlot> { using type = Fast; };
template <> struct Identity<AttentionSlot> { using type = LocalAttention; };

/// A policy names the slot it fills.
template <class P>
concept Policy = requires {
  typename P::Slot;
  typename Identity<typename P::Slot>::type;
};

template <class A, class B>
constexpr bool excludes() {
  if constexpr (requires { A::template excludes<B>; }) return A::template excludes<B>;
  else return false;
}

namespace detail {

template <class Slot, class P>
inline constexpr bool fills = false;
template <class Slot, Policy P>
inline constexpr bool fills<Slot, P> = std::same_as<typename P::Slot, Slot>;

template <class P, class... All>
inline constexpr int rivals = 1;  // policies in P's slot
template <Policy P, class... All>
inline constexpr int rivals<P, All...> = (int{fills<typename P::Slot, All>} + ... + 0);

}  // namespace detail

template <class... Policies>
class Recipe {
  static constexpr bool known = (Policy<Policies> && ...);
  static constexpr bool distinct = ((detail::rivals<Policies, Policies...> == 1) && ...);
  template <class P>
  static constexpr bool excludes_another = (excludes<P, Policies>() || ...);
  static_assert(known, "dsx-E106: something in this recipe is no policy: a policy names its slot, as in `using Slot = dsx::ShardingSlot;`");
  static_assert(!known || distinct, "dsx-E102: two policies of this recipe fill the same slot; keep one");
  static_assert(!known || !distinct || !(excludes_another<Policies> || ...),
                "dsx-E107: two policies of this recipe exclude each other; drop one (its header says why)");

 public:
  constexpr Recipe(Policies... policies) : policies_{policies...} {}

  template <class Slot>
  constexpr auto get() const {
    constexpr int filled = (int{detail::fills<Slot, Policies>} + ... + 0);
    if constexpr (filled == 0) return typename Identity<Slot>::type{};
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

/// A recipe whose policies are chosen at run time: from a command line, or one instantiation for many tests.
using AnyRecipe = Recipe<AnySharding, AnySchedule, AnyOffload, AnyPrecision, AnyRecompute>;

}  // namespace dsx
