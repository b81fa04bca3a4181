// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides in which tier each kind of memory rests between uses: a class's weights, gradients and optimizer state, and saved activations.
///
///     Recipe{Resident{}}                           // the identity
///     Recipe{Rest<OptimizerState>{Tier::host}}     // include/dsx/offload/rest.hpp
///
/// Law (tests/laws/offload_laws.hpp): where something rests never changes the bits that come back.
#pragma once

#include <dsx/place/disk.hpp>
#include <dsx/policy/sharding.hpp>

namespace dsx {

/// What rests somewhere.
enum class Kind : std::uint8_t { weights, gradients, state, activations };
inline constexpr Extent kinds = 4;

/// Kinds as types, for lists of them.
struct Parameters {
  static constexpr Kind kind = Kind::weights;
};
struct Gradients {
  static constexpr Kind kind = Kind::gradients;
};
struct OptimizerState {
  static constexpr Kind kind = Kind::state;
};  // master weights and moments: the update runs where they rest
struct Activations {
  static constexpr Kind kind = Kind::activations;
};
template <class K>
concept RestingKind = requires {
  { K::kind } -> std::convertible_to<Kind>;
};

struct OffloadSlot {
  static constexpr const char* name = "offload";
};
/// Of activations the policy is asked once, with an empty info.
template <class P>
concept OffloadPolicy = requires(const P& p, Kind kind, const ParameterInfo& info) {
  { p.rests(kind, info) } -> std::same_as<Tier>;
};

/// Where a policy's disk is, if it says so: `DiskOptions disk() const`.
DiskOptions disk_of(const OffloadPolicy auto& policy) {
  if constexpr (requires {
                  { policy.disk() } -> std::same_as<DiskOptions>;
                })
    return policy.disk();
  else
    return {};
}

/// The identity: everything rests on the device.
struct Resident {
  using Slot = OffloadSlot;
  constexpr Tier rests(Kind, const ParameterInfo&) const { return Tier::device; }
};

/// Any offload policy, chosen at run time.
class AnyOffload : public AnyPolicy {
 public:
  using Slot = OffloadSlot;
  AnyOffload() : AnyOffload{Resident{}} {}
  template <OffloadPolicy P>
    requires(!std::same_as<P, AnyOffload>)
  AnyOffload(P policy)
      : AnyPolicy{tag_of<P, Slot>()}, rests_{[policy](Kind k, const ParameterInfo& i) { return policy.rests(k, i); }}, disk_{disk_of(policy)} {}
  DiskOptions disk() const { return disk_; }
  Tier rests(Kind kind, const ParameterInfo& info) const { return rests_(kind, info); }

 private:
  std::function<Tier(Kind, const ParameterInfo&)> rests_;
  DiskOptions disk_;
};
static_assert(OffloadPolicy<Resident> && OffloadPolicy<AnyOffload>);

}  // namespace dsx

// dsx-policy: offload resident Resident{}
