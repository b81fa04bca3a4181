// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Gradients summed in grains: each micro-batch's, as soon as its unit's backward has ended, in slices over all ranks that sum it.
///
///     GrainReduction reduction{mesh};
///     Lease lease = reduction.set_off(bundle, leaves);     // everyone's slice of everyone's gradient
///     lease.wait(), reduction.add(bundle, unit, leaves);
///     reduction.finish(bundles, tied);                     // bundle.reduced
///
/// The transport adds nothing up, so it need promise no order: it brings each rank all grains of its slice, and they are added here.
#pragma once

#include <dsx/kernels/optimizer.hpp>
#include <dsx/weights/bundle.hpp>

namespace dsx {

/// Sums of all ranks, the same bits on each whatever the transport's order.
inline void all_reduce_exactly(const Communicator& ranks, ExactSum& first, ExactSum& second) {
  std::array<double, 2 * ExactSum::numbers> all{};
  const std::span<double, 2 * ExactSum::numbers> numbers{all};
  first.to(numbers.first<ExactSum::numbers>()), second.to(numbers.last<ExactSum::numbers>());
  ranks.all_reduce({all.data(), {all.size(), 1}, Element::f64}).wait();
  first = ExactSum::from(numbers.first<ExactSum::numbers>()), second = ExactSum::from(numbers.last<ExactSum::numbers>());
}

class GrainReduction {
 public:
  explicit GrainReduction(const Mesh& mesh) : mesh_{&mesh}, session_{&mesh.session()}, memory_{&session_->memory} {}

  /// Room for the partial sums of a step, and for the gradient of this rank's state where that is more than a slice.
  void keep(Bundle& b, Extent micro_batches) const {
    const auto take = [&](Extent size) { return memory_->keep(Category::gradients, {size, 1}, b.elements.gradient, b.tier(Kind::gradients)); };
    const Extent ranks = mesh_->size(ranks_of(b));
    for (GrainSum& sum : b.sums = std::vector<GrainSum>(b.units.size())) {
      std::vector<View> slots(GrainSum::slots(micro_batches, ranks));
      for (View& slot : slots) slot = take(b.size / ranks);
      sum.keep(std::move(slots), micro_batches * ranks);
    }
    if (mesh_->size(copies_of(b)) > 1) b.gradient_part = take(b.mine.size());
  }
  void give_back(Bundle& b) const {
    const auto give = [&](const View& v) { memory_->give_back(Category::gradients, v, b.tier(Kind::gradients)); };
    for (const GrainSum& sum : b.sums) std::for_each(sum.slots().begin(), sum.slots().end(), give);
    if (b.gradient_part.size()) give(b.gradient_part);
    b.sums.clear(), b.gradient_part = b.reduced = {};
  }

  /// Whether there are other ranks, whose leaves come.
  bool travels(const Bundle& b) const { return mesh_->size(ranks_of(b)) > 1; }
  Lease set_off(const Bundle& b, const View& leaves) const { return travels(b) ? mesh_->along(ranks_of(b)).all_to_all(b.gradient, leaves) : Lease{}; }
  void add(Bundle& b, Unit unit, const View& leaves) const {
    const auto use = std::find(b.units.begin(), b.units.end(), unit) - b.units.begin();
    b.sums[Extent(use)].add(*session_, leaves, b.away(Kind::gradients));
  }

  /// What is left when all micro-batches have come: over the tensor axis, over a tie's uses, on all stages, and copies where the state has
  /// any. `tied`: those over stages, in the order that all of them keep.
  void finish(std::deque<Bundle>& bundles, const std::vector<Bundle*>& tied) const {
    for (Bundle& b : bundles) {
      if (!b.kind.trained) continue;
      for (const GrainSum& sum : b.sums) over_tensor(b, sum.whole());
      if (b.stages.size() == 1) over_uses(b);
    }
    for (Bundle* b : tied) over_stages(*b);
    for (Bundle& b : bundles)
      if (const Axes copies = copies_of(b); b.kind.trained && mesh_->size(copies) > 1) {
        open(b, b.reduced,
             [&](const View& slice) { open(b, b.gradient_part, [&](const View& all) { mesh_->along(copies).all_gather(slice, all).wait(); }); });
        b.reduced = b.gradient_part;
      }
  }

  /// Of this rank's elements alone.
  ExactSum squared_norm(const std::deque<Bundle>& bundles) const {
    ExactSum sum;
    for (const Bundle& b : bundles)
      if (b.kind.trained)
        session_->read(b.reduced.part({b.counted.begin - b.mine.begin, b.counted.end - b.mine.begin}), [&](View g) { kernels::add_squares(g, sum); });
    return sum;
  }

 private:
  static Axes ranks_of(const Bundle& b) { return b.kind.summed_over - Axes::tensor; }
  static Axes copies_of(const Bundle& b) { return ranks_of(b) - b.where.state; }
  /// f(view) with what may rest off the device open, and kernels on the host if it does.
  void open(const Bundle& b, const View& resting, auto f) const {
    std::optional<HostScope> host;
    if (b.away(Kind::gradients)) host.emplace(*session_);
    f(Opened{*memory_, resting, Access::update}.view());
  }
  auto add_up() const {
    return [this](const View& from, const View& to) { session_->launch(kernels::pass_on, from, Grad{to, true}); };
  }
  /// Each rank adds up its part of everyone's.
  void over_tensor(const Bundle& b, const View& sum) const {
    const Communicator& ranks = mesh_->along(b.kind.summed_over & Axes::tensor);
    if (ranks.size() == 1) return;
    open(b, sum, [&](const View& here) {
      const ScratchScope scope{*memory_};
      const View leaves = memory_->scratch.take(here.shape, here.element);
      ranks.all_to_all(here, leaves).wait();
      TreeSum tree;
      for (Extent r = 0; r < ranks.size(); ++r) tree.add(leaves.part(share({0, leaves.size()}, ranks.size(), r)), add_up());
      tree.fold(add_up());
      ranks.all_gather(tree.at(0), here).wait();
    });
  }
  void over_uses(Bundle& b) const {
    TreeSum tree;
    const auto add = [&](const View& from, const View& to) {
      open(b, from, [&](const View& term) { open(b, to, [&](const View& sum) { add_up()(term, sum); }); });
    };
    for (const GrainSum& sum : b.sums) tree.add(sum.whole(), add);
    tree.fold(add);
    b.reduced = tree.at(0);
  }
  /// Each use's sum comes from its stage; all stages add them up.
  void over_stages(Bundle& b) const {
    std::optional<HostScope> host;
    if (b.away(Kind::gradients)) host.emplace(*session_);
    const ScratchScope scope{*memory_};
    TreeSum tree;
    Extent mine = 0;
    for (const auto& [unit, stage] : b.uses) {
      const View& whole = b.sums.front().whole();
      const View sum = memory_->scratch.take(whole.shape, whole.element);
      if (stage == b.stages.rank()) session_->move(b.sums[mine++].whole(), sum);
      b.stages.broadcast(sum, stage).wait();
      tree.add(sum, add_up());
    }
    tree.fold(add_up());
    b.reduced = b.sums.front().whole();
    session_->move(tree.at(0), b.reduced);
  }

  const Mesh* mesh_;
  Session* session_;
  Memory* memory_;
};

}  // namespace dsx
