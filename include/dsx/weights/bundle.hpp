// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A bundle: one flat padded buffer for the parameters of one unit and one class (axes, role, tie, trained or not).
///
///     for (Bundle& b : bundles.all()) optimizer.update(b, verdict, mesh);
///
/// Elements are numbered over the whole bundle; a rank has those of `resting` at rest, those of `mine` with their state,
/// and answers alone for those of `counted`: in the norm, when whole weights are collected, when a checkpoint is written.
#pragma once

#include <dsx/pass/operation.hpp>
#include <dsx/policy/offload.hpp>
#include <dsx/policy/precision.hpp>
#include <dsx/policy/quantizer.hpp>
#include <dsx/policy/sharding.hpp>
#include <dsx/weights/grain_sums.hpp>
#include <dsx/weights/packed.hpp>

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace dsx {

/// What of a parameter lies on this rank of a mesh.
inline LocalPart part_on(const Mesh& mesh, const Parameter& p) {
  return {p, mesh.size(p.split.over), mesh.coordinate(p.split.over), mesh.size(Axes::expert), mesh.coordinate(Axes::expert)};
}

/// One parameter's place in its bundle.
struct Segment {
  std::string path;
  LocalPart part;
  Init init;
  Extent offset = 0;
  Held held{};
  Range range() const { return {offset, offset + part.local.size()}; }
};

/// What a quantizer says of a bundle; null: nothing is packed there.
struct Codecs {
  const Codec *gather = nullptr, *reduction = nullptr, *state = nullptr;
  bool feedback = false;  // of the reduction
};

/// A unit that uses a tied parameter, and the rank of its stage among those that share it.
struct TieUse {
  Unit unit;
  Rank stage;
};

struct Bundle {
  ParameterInfo kind;  // the class
  Residency where;
  Elements elements;
  std::string tie{};
  Codecs codecs{};
  std::deque<Segment> segments{};
  std::vector<Unit> units{};    // on this stage; several where a tie joins them
  Communicator stages{};        // those that share a tied bundle
  Extent tie_order = 0;         // the same on every stage
  std::vector<TieUse> uses{};   // on all of them, in the order of units
  bool first_stage = true;
  std::array<Tier, kinds> rests{};  // by kind, the tier in which it lies between uses
  Extent size = 0;              // in elements, padded so that data x tensor ranks divide it

  View rest{}, near{};               // weights between uses, and between forward and backward if elsewhere: packed, if gathers are
  View gradient{}, gradient_part{};  // of one backward, summed over micro-batches
  View gradient_at_rest{};           // one that is kept whole, where it rests off the device
  View reduced{};                    // at the end of a step: the gradient of this rank's state
  View own_master{};                 // the master of `mine` where its element or its tier isn't the weights', or those were packed
  View updated{};                    // while an update runs elsewhere than the weights rest: where its result goes
  std::vector<View> states{};        // of the optimizer, over `mine`; at rest packed, if codecs say so
  std::vector<bool> squares{};       // which of them are means of squares
  std::vector<std::vector<double>> loading{};            // packed ones while a checkpoint is read: blocks straddle its tensors
  std::optional<PackedReduction> to_part{}, to_state{};  // of gradients: to the part that rests, from there to that of the state
  std::unique_ptr<Reduction> whole_sum{};                // over the axes that don't cut the state; none: the communicator's
  std::unique_ptr<Reduction> own_sum{};                  // an optimizer's, over the same axes: of what it makes of gradients
  bool keeps_term = false;  // in this step `reduced` is this rank's term of a sum that the optimizer makes
  bool part_touched = false, in_training = false;
  bool publishes_packed = false;  // updated weights are gathered packed into those that rest
  bool unpublished = false;       // and those that rest were given from outside: they aren't what a gather leaves yet
  bool by_grains = false;         // its gradient is summed by grain_reduction.hpp
  std::vector<GrainSum> sums{};   // then, while it is trained, one for each of `units`
  Range resting{}, mine{}, counted{};

  Tier tier(Kind kind) const { return rests[std::size_t(kind)]; }
  bool away(Kind kind) const { return tier(kind) != Tier::device; }
  bool has_own_master() const { return publishes_packed || elements.master != elements.value || tier(Kind::state) != tier(Kind::weights); }
  /// The data ranks that sum a gradient whole, since nothing of the state is cut over them.
  Axes summed_whole() const { return (kind.summed_over - Axes::tensor) - where.state; }
  /// Of this rank's slice. It is no state: what asymmetric codes make of its zeros must not change a block's scale.
  Range padding_of_mine() const {
    const Range all = overlap({segments.back().range().end, size}, mine);
    return all.size() ? Range{all.begin - mine.begin, all.end - mine.begin} : Range{};
  }
  /// This rank's slice of the weights at rest.
  View slice() const { return rest.part({mine.begin - resting.begin, mine.end - resting.begin}); }
  /// Where an update puts new weights.
  View weight_of_state() const { return updated.size() ? updated : slice(); }
  View master() const { return own_master.size() ? own_master : weight_of_state(); }
  /// Its gradient is kept whole from its first to its last use (ties, or nothing cuts it).
  bool keeps_gradient() const { return !by_grains && (gradient_part.size() == 0 || units.size() > 1); }
};

/// The elements of one parameter in this rank's slice: f(element of the slice, element of the whole parameter).
void each_element(const Bundle& b, const Segment& s, Range within, auto f) {
  const Range here = overlap(s.range(), within);
  for (Extent i = here.begin; i < here.end; ++i) f(i - b.mine.begin, s.part.whole_index(i - s.offset));
}

}  // namespace dsx
