// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// 1-bit Adam (Tang et al. 2021, arXiv 2102.02888): after `freeze_step` steps of Adam the second moment stays as it is, each data rank
/// moves the first by its own gradient, and the ranks' mean of it travels as signs.
///
///     Trainer trainer{weights, OneBitAdam{.rate = 1e-3, .freeze_step = 200}, TokenLoss{}, options};   // of 1000 steps, say
///
/// As in the paper moments aren't corrected for their start. What had no gradient before `freeze_step` stays where it is afterwards. Freeze when
/// the second moment has settled: where gradients still grow, steps become too long, for nothing answers them any more.
#pragma once

#include <dsx/optim/optimizer.hpp>
#include <dsx/weights/one_bit.hpp>

namespace dsx {

struct OneBitAdam {
  double rate = 1e-3, beta_1 = 0.9, beta_2 = 0.95, epsilon = 1e-8, decay = 0.1;
  Extent freeze_step = 0;  // the last step of warm-up; a fifth of the run is usual

  std::vector<StateSpec> states(const ParameterInfo&) const { return {{"first_moment"}, {"second_moment", true}}; }
  Extent exact_steps() const { return freeze_step; }
  /// Over the data ranks that don't cut the state; none where there is one.
  std::unique_ptr<Reduction> reduction(const Bundle& b, const Mesh& mesh) const {
    if (freeze_step == 0) fail<120>("1-bit Adam with a freeze step of 0 has no second moment to divide by; give it steps of warm-up");
    const Axes summed = b.kind.summed_over - Axes::tensor, axes = b.summed_whole();
    if (mesh.size(summed) > 1 && mesh.size(axes) == 1)
      fail<121>("1-bit Adam sums momenta of ", b.segments.front().path, " over ranks that hold them whole, but its state is cut over ",
                to_text(b.where.state), ", where all of its ", mesh.size(summed), " data ranks are; leave the state whole, or take AdamW");
    if (mesh.size(axes) == 1) return {};
    std::vector<Range> tensors;
    for (const Segment& s : b.segments)
      if (const Range here = overlap(s.range(), b.mine); here.size() > 0) tensors.push_back({here.begin - b.mine.begin, here.end - b.mine.begin});
    return std::make_unique<OneBit>(mesh, axes, std::move(tensors), b.mine.size(), b.elements.master, b.tier(Kind::state));
  }
  void update(Bundle& b, const Verdict& v, const Mesh& mesh) const {
    const Session& session = mesh.session();
    const kernels::AdamWStep step{
        .rate = rate, .beta_1 = beta_1, .beta_2 = beta_2, .epsilon = epsilon, .decay = decay_of(decay, b.kind.role), .scale = v.scale};
    const View momentum = b.states[0];
    if (v.step <= freeze_step) return session.launch(kernels::adamw, step, b.master(), b.reduced, momentum, b.states[1], b.weight_of_state());
    const double ranks = b.own_sum ? double(mesh.size(b.summed_whole())) : 1;  // the momentum, which all have, is shared out
    session.launch(kernels::blend, beta_1 / ranks, (1 - beta_1) * v.scale, b.reduced, momentum);
    if (b.own_sum) b.own_sum->reduce(momentum);
    session.launch(kernels::adamw_frozen, step, b.master(), momentum, b.states[1], b.weight_of_state());
  }
};
static_assert(Optimizer<OneBitAdam>);

}  // namespace dsx

// dsx-policy: optimizer onebit_adam OneBitAdam{.rate = 3e-3, .epsilon = 1e-4, .freeze_step = 10}
