// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides over which axes a bundle's weights, gradients and optimizer state are cut.
///
///     struct HalfAndHalf {                                            // a user's own, in his own file
///       using Slot = dsx::ShardingSlot;
///       dsx::Residency residency(const dsx::ParameterInfo& info, const dsx::Mesh&) const {
///         return info.whole.size() < 1'000'000 ? dsx::Residency{} : dsx::Residency{.state = dsx::Axes::inner};
///       }
///     };
///     static_assert(dsx::ShardingPolicy<HalfAndHalf>);
///
/// Laws (tests/laws/sharding_laws.hpp): the ranks' shares cover each element exactly once; gathering what was cut gives back
/// the original bits; the policy answers the same on every rank.
#pragma once

#include <dsx/comm/mesh.hpp>
#include <dsx/pass/parameter.hpp>
#include <dsx/policy/exclusion.hpp>

#include <concepts>
#include <functional>

namespace dsx {

/// One class of parameters: all that share axes, role and tie share a bundle within their unit.
struct ParameterInfo {
  std::string_view path{};   // of a tied parameter, else empty
  Shape whole{};             // of the first parameter of the class
  Axes split_over{};         // axes that cut it
  Axes summed_over{};        // axes that sum its gradient
  Role role{};
  bool trained = true;
};

/// Over which axes one class of parameters is cut: weights at rest, from where forward gathers; weights between forward and
/// backward, from where backward gathers; gradients; state. They nest: weights and gradients are cut only over axes that cut the state, the state
/// only over axes that sum gradients.
struct Residency {
  Axes forward = Axes::none, backward = Axes::none, gradients = Axes::none, state = Axes::none;
  bool ahead = true;  // weights are on their way while the unit before computes, and gradients while the next one does
  friend bool operator==(const Residency&, const Residency&) = default;
};

struct ShardingSlot {
  static constexpr const char* name = "sharding";
};

template <class P>
concept ShardingPolicy = requires(const P& policy, const ParameterInfo& info, const Mesh& mesh) {
  { policy.residency(info, mesh) } -> std::same_as<Residency>;
};

/// The identity: every rank holds everything, so nothing is ever gathered.
struct Replicate {
  using Slot = ShardingSlot;
  constexpr Residency residency(const ParameterInfo&, const Mesh&) const { return {}; }
};
static_assert(ShardingPolicy<Replicate>);

/// Any sharding policy, chosen at run time.
class AnySharding : public AnyPolicy {
 public:
  using Slot = ShardingSlot;
  AnySharding() : AnySharding{Replicate{}} {}
  template <ShardingPolicy P>
    requires(!std::same_as<P, AnySharding>)
  AnySharding(P policy)
      : AnyPolicy{tag_of<P, Slot>()}, residency_{[policy](const ParameterInfo& i, const Mesh& m) { return policy.residency(i, m); }} {}
  Residency residency(const ParameterInfo& info, const Mesh& mesh) const { return residency_(info, mesh); }

 private:
  std::function<Residency(const ParameterInfo&, const Mesh&)> residency_;
};
static_assert(ShardingPolicy<AnySharding>);

}  // namespace dsx

// dsx-policy: sharding replicate Replicate{}
