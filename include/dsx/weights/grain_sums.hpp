// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Sums in an order that no layout changes: over numbered grains by one binary tree, over numbers of ranks without rounding.
///
///     GrainSum sum{{slots...}, 2};                  // of 2 data ranks
///     sum.begin(8);                                 // grains of a step
///     sum.add(session, leaves);                     // grains 0 and 1, then 2 and 3, ...
///     View whole = sum.whole();                     // ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))
///
/// Micro-batch j of data rank r is grain j x (data ranks) + r. The tree over n grains is cut at the largest power of two below n, so
/// that n needn't be one: each layout of n grains makes the same tree.
#pragma once

#include <dsx/comm/mesh.hpp>
#include <dsx/core/exact_sum.hpp>
#include <dsx/kernels/elementwise.hpp>

#include <array>
#include <bit>
#include <optional>
#include <vector>

namespace dsx {

/// The sums of leaves that come one after another: each of 2^k leaves waits until its sibling has come.
class TreeSum {
 public:
  /// add(from, to): to += from. A sum lies where its first leaf lay.
  void add(View leaf, auto add) {
    Extent leaves = 1;
    for (; count_ > 0 && waiting_[count_ - 1].leaves == leaves; leaves *= 2) {
      const View sibling = waiting_[--count_].at;
      add(leaf, sibling), leaf = sibling;
    }
    waiting_[count_++] = {leaf, leaves};
  }
  /// The last leaf has come: what waits is added up, the smallest sums first.
  void fold(auto add) {
    for (; count_ > 1; --count_) add(waiting_[count_ - 1].at, waiting_[count_ - 2].at);
  }
  Extent waiting() const { return count_; }
  View& at(Extent i) { return waiting_[i].at; }  // the largest sums first
  void clear() { count_ = 0; }

 private:
  struct Node {
    View at{};
    Extent leaves = 0;
  };
  std::array<Node, 40> waiting_{};
  Extent count_ = 0;
};

/// One gradient's slice, summed over the micro-batches of a step as they come. Partial sums that wait have a slot each, which may rest
/// off the device.
class GrainSum {
 public:
  /// Partial sums that wait between micro-batches, of which each brings as many grains as there are `ranks`.
  static Extent slots(Extent micro_batches, Extent ranks) {
    int most = 1;
    for (Extent m = 1; m < micro_batches; ++m) most = std::max(most, std::popcount(m * ranks));
    return Extent(most);
  }

  void keep(std::vector<View> slots, Extent grains) { slots_ = std::move(slots), grains_ = grains, begin(); }
  const std::vector<View>& slots() const { return slots_; }
  void begin() { tree_.clear(), came_ = 0; }
  /// The next micro-batch's leaves, one for each rank in order; their memory is used up.
  void add(Session& session, View leaves, bool away) {
    std::optional<HostScope> host;
    if (away) host.emplace(session);
    const ScratchScope scope{session.memory};
    if (away) {
      const View here = session.memory.scratch.take(leaves.shape, leaves.element);
      session.move(leaves, here), leaves = here;
    }
    const auto add_up = [&](const View& from, const View& to) {
      const Opened term{session.memory, from, Access::read}, sum{session.memory, to, Access::update};
      session.launch(kernels::pass_on, term.view(), Grad{sum.view(), true});
    };
    const Extent size = slots_.front().size();
    for (Extent begin = 0; begin < leaves.size(); begin += size) tree_.add(leaves.part({begin, begin + size}), add_up);
    came_ += leaves.size() / size;
    if (came_ == grains_) tree_.fold(add_up);
    for (Extent i = 0; i < tree_.waiting(); ++i) {
      View& at = tree_.at(i);
      if (at.data == slots_[i].data && !session.is_dry()) continue;
      away ? session.move(at, slots_[i]) : session.launch(kernels::copy, at, slots_[i]);
      at = slots_[i];
    }
  }
  /// Of all grains, when all have come.
  const View& whole() const { return slots_.front(); }

 private:
  std::vector<View> slots_{};
  TreeSum tree_{};
  Extent grains_ = 0, came_ = 0;
};

}  // namespace dsx
