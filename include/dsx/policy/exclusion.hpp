// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a policy can't stand beside, as data, so that one rule holds for types and for policies chosen at run time.
///
///     struct EagerSharding {
///       using Slot = dsx::ShardingSlot;
///       static constexpr dsx::Exclusion excludes[]{dsx::excluding<dsx::GPipe>("its gradients leave with each micro-batch")};
///       dsx::Residency residency(const dsx::ParameterInfo&, const dsx::Mesh&) const;
///     };
///     constexpr dsx::Recipe recipe{EagerSharding{}, dsx::GPipe{}};    // dsx-E107, from the compiler; chosen by name at start
#pragma once

#include <concepts>
#include <cstddef>
#include <span>

namespace dsx {

namespace detail {
template <class P>
inline constexpr char identity_of{};
}
/// A policy's type, comparable after the type is forgotten. The type may be incomplete, so that policies need not include each other.
using PolicyId = const void*;
template <class P>
inline constexpr PolicyId policy_id = &detail::identity_of<P>;

struct Exclusion {
  PolicyId other;
  const char* why;
};
template <class Other>
constexpr Exclusion excluding(const char* why) {
  return {policy_id<Other>, why};
}

/// What is remembered of a policy, whatever holds it.
struct PolicyTag {
  const char* slot = "";
  PolicyId id = nullptr;
  std::span<const Exclusion> excludes{};
};
template <class P, class Slot = typename P::Slot>
constexpr PolicyTag tag_of() {
  if constexpr (requires { P::excludes; })
    return {Slot::name, policy_id<P>, P::excludes};
  else
    return {Slot::name, policy_id<P>, {}};
}

/// The base of AnySharding and its like: they answer for the policy that they hold.
class AnyPolicy {
 public:
  const PolicyTag& tag() const { return tag_; }

 protected:
  explicit AnyPolicy(const PolicyTag& tag) : tag_{tag} {}

 private:
  PolicyTag tag_;
};
template <class P>
constexpr PolicyTag tag_of(const P& policy) {
  if constexpr (std::derived_from<P, AnyPolicy>)
    return policy.tag();
  else
    return tag_of<P>();
}

/// The first policy of a list that excludes another one, by place; `why` is null if none does.
struct Conflict {
  std::size_t by = 0, other = 0;
  const char* why = nullptr;
};
constexpr Conflict conflict_in(std::span<const PolicyTag> all) {
  for (std::size_t by = 0; by < all.size(); ++by)
    for (const Exclusion& e : all[by].excludes)
      for (std::size_t other = 0; other < all.size(); ++other)
        if (all[other].id == e.other) return {by, other, e.why};
  return {};
}

}  // namespace dsx
