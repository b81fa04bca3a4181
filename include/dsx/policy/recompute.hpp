// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides what backward keeps and what it runs again.
///
///     Recipe{RecomputeUnits{}}
///     Recipe{RecomputeOperations{.classes = OperationClass::norms | OperationClass::elementwise}}
///
/// Law (tests/laws/recompute_laws.hpp): gradients are the same bits as without it, dropout included.
#pragma once

#include <dsx/pass/pass.hpp>
#include <dsx/policy/exclusion.hpp>

namespace dsx {

struct RecomputeSlot {
  static constexpr const char* name = "recompute";
};

struct ArchetypeLayer {
  Value<Common> operator()(Value<Common> x) const { return x; }
};
template <class P>
concept RecomputePolicy = requires(const P& p, const ArchetypeLayer& layer, Value<Common> x, Pass& pass) {
  { p.run(layer, x, pass) } -> std::same_as<Value<Common>>;
};

/// The identity: what backward reads is kept.
struct KeepActivations {
  using Slot = RecomputeSlot;
  auto run(const auto& layer, auto flow, Pass&) const { return layer(flow); }
};

/// Operations of these classes are played again where backward first reads what they gave; all else is kept (Korthikanti et al. 2022).
/// What isn't named costs no time; attention keeps no probabilities in the first place.
struct RecomputeOperations {
  using Slot = RecomputeSlot;
  OperationClass classes = OperationClass::norms | OperationClass::elementwise;
  auto run(const auto& layer, auto flow, Pass& pass) const {
    return pass.recompute(classes, [&layer](auto x) { return layer(x); }, flow);
  }
};

/// A unit keeps only what leaves it and is played again in backward (Chen et al. 2016).
struct RecomputeUnits {
  using Slot = RecomputeSlot;
  auto run(const auto& layer, auto flow, Pass& pass) const {
    return pass.recompute([&layer](auto x) { return layer(x); }, flow);
  }
};

/// Any of the above, chosen at run time.
class AnyRecompute : public AnyPolicy {
 public:
  using Slot = RecomputeSlot;
  AnyRecompute() : AnyRecompute{KeepActivations{}} {}
  AnyRecompute(KeepActivations) : AnyPolicy{tag_of<KeepActivations>()} {}
  AnyRecompute(RecomputeUnits) : AnyPolicy{tag_of<RecomputeUnits>()} {}
  AnyRecompute(RecomputeOperations policy) : AnyPolicy{tag_of<RecomputeOperations>()}, operations_{policy} {}
  bool units() const { return tag().id == policy_id<RecomputeUnits>; }
  auto run(const auto& layer, auto flow, Pass& pass) const {
    return units() ? RecomputeUnits{}.run(layer, flow, pass) : operations_.run(layer, flow, pass);
  }

 private:
  RecomputeOperations operations_{.classes = OperationClass::none};
};
static_assert(RecomputePolicy<KeepActivations> && RecomputePolicy<RecomputeOperations> && RecomputePolicy<RecomputeUnits> &&
              RecomputePolicy<AnyRecompute>);

}  // namespace dsx

// dsx-policy: recompute keep KeepActivations{}
// dsx-policy: recompute recompute RecomputeUnits{}
// dsx-policy: recompute selective RecomputeOperations{}
