// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Counts what a router's tokens wished for and what they got, and says what such counts mean.
///
///     p.run(MeterRoutes{{}, routes.wanted, routes.counts, routes.probabilities, buffer.slot, true});
///     const Load load{counts};                     // load.most: the busiest expert's share, in units of an even one
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/pass/pass.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace dsx {

/// What a router's counts say.
struct Load {
  std::vector<double> share{};  // of all wishes, by expert
  double least = 0, most = 0;   // of the shares, in units of an even one
  double entropy = 0;           // of the shares, over that of an even choice: 1 is perfect balance
  double balance = 0;           // experts times the sum of share x mean probability: 1 is perfect balance
  double dropped = 0;           // of all wishes

  Load() = default;
  /// Three times as many numbers as experts: wishes, seats, probabilities.
  explicit Load(std::span<const float> counts) : share(counts.size() / 3) {
    const Extent experts = share.size();
    const auto total = [&](Extent part) { return std::accumulate(&counts[part * experts], &counts[part * experts] + experts, 0.0); };
    const double wishes = total(0), probabilities = total(2);
    if (!(wishes > 0)) return;
    for (Extent e = 0; e < experts; ++e) {
      share[e] = double(counts[e]) / wishes;
      if (share[e] > 0 && experts > 1) entropy -= share[e] * std::log(share[e]) / std::log(double(experts));
      if (probabilities > 0) balance += double(experts) * share[e] * double(counts[2 * experts + e]) / probabilities;
    }
    least = double(experts) * *std::min_element(share.begin(), share.end()), most = double(experts) * *std::max_element(share.begin(), share.end());
    dropped = 1 - total(1) / wishes;
  }
};

struct MeterRoutes : Operation {
  static constexpr const char* name = "meter_routes";
  Node wanted, counts, probabilities;
  Slot load;
  bool counted;  // on this rank: where tokens are split, each tensor rank adds its counts, and all of them may see all tokens
  void forward(Pass& p) const {
    const auto scope = p.scratch_scope();
    const auto count = [mine = counted](View wanted_Tk, View counts_E, View probabilities_TE, Grad to) {
      if (!to.accumulate) kernels::zero(to.view);
      if (!mine) return;
      const Extent experts = counts_E.size();
      dispatch(to.view.element, [&](auto zero) {
        using W = decltype(zero);
        const auto add = [&](Extent at, double x) { to.view.at<W>(0, at) = W(double(to.view.at<W>(0, at)) + x); };
        for (Extent t = 0; t < wanted_Tk.shape.rows; ++t) {
          for (Extent i = 0; i < wanted_Tk.shape.columns; ++i)
            if (const auto e = wanted_Tk.at<std::int32_t>(t, i); e >= 0) add(Extent(e), 1);
          for (Extent e = 0; e < experts; ++e) add(2 * experts + e, double(probabilities_TE.at<W>(t, e)));
        }
        for (Extent e = 0; e < experts; ++e) add(experts + e, double(std::max(counts_E.at<std::int32_t>(0, e), 0)));
      });
    };
    p.launch(count, p.view(wanted), p.view(counts), p.view(probabilities), p.buffer_update(load));
  }
  void towards_inputs(Pass&) const {}
};

}  // namespace dsx
