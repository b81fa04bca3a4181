// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What is minimised: given to the trainer, not to the model.
///
///     struct Sum {                                          // a user's own
///       dsx::Counts counts(const dsx::Batch& b) const { return {double(b.live())}; }
///       void operator()(dsx::Value<dsx::Common> out, const dsx::Counts& c) const { ... out.pass->add_loss(node, 1 / c.targets); }
///     };
#pragma once

#include <dsx/ops/token_loss.hpp>

#include <algorithm>

namespace dsx {

/// How many a loss averages over: known, and the same on every rank, before the pass.
struct Counts {
  double targets = 0;
  double rows = 0;  // of a step; an objective leaves them to the trainer
};

template <class O, class Out>
concept Objective = requires(const O& o, Out out, const Batch& b, const Counts& c) {
  { o.counts(b) } -> std::same_as<Counts>;
  o(out, c);
};

/// The mean cross entropy over all counted targets of a step, in nats. `chunk`: vocabulary entries whose logits exist at once.
struct TokenLoss {
  Extent chunk = 4096;
  Counts counts(const Batch& batch) const {
    return {double(std::count_if(batch.targets.begin(), batch.targets.end(), [](int t) { return t >= 0; }))};
  }
  void operator()(const Logits& logits, const Counts& counts) const {
    logits.hidden_RC.pass->add_loss(cross_entropy(logits, chunk), counts.targets > 0 ? 1 / counts.targets : 0);
  }
};
static_assert(Objective<TokenLoss, Logits>);

}  // namespace dsx
