// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The last row of each sequence: what a generator turns into the next token, and a reward model into a score.
///
///     Logits next = logits;
///     next.hidden_RC = last_rows(logits.hidden_RC, 8);   // of at most 8 sequences
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

struct LastRows : Operation {
  static constexpr const char* name = "last_rows";
  Node x, y;
  void forward(Pass& p) const {
    const auto pick = [](View from, Sequences sequences, View to) {
      for (Extent s = 0; s < sequences.count(); ++s) kernels::copy(from.rows(row(sequences, s)), to.rows({s, s + 1}));
    };
    p.launch(pick, p.view(x), p.batch().sequences, p.view(y));
  }
  void towards_inputs(Pass& p) const {
    const auto spread = [](View dy, Sequences sequences, Grad dx) {
      if (!dx.accumulate) kernels::zero(dx.view);
      for (Extent s = 0; s < sequences.count(); ++s) kernels::pass_on(dy.rows({s, s + 1}), {dx.view.rows(row(sequences, s)), dx.accumulate});
    };
    p.launch(spread, p.incoming(y), p.batch().sequences, p.gradient(x));
  }

 private:
  static Range row(Sequences sequences, Extent s) { return {sequences[s].end - 1, sequences[s].end}; }
};
/// `bound`: the most sequences of a micro-batch. dsx-E304 for more, and for a sequence without rows.
inline Value<Replicated> last_rows(Value<Replicated> x_RC, Extent bound) {
  Pass& p = *x_RC.pass;
  const Sequences sequences = p.batch().sequences;
  if (sequences.count() > bound) fail<304>(sequences.count(), " sequences in a micro-batch; the plan holds ", bound);
  for (Extent s = 0; s < sequences.count(); ++s)
    if (sequences[s].size() == 0) fail<304>("sequence ", s, " of a micro-batch has no row");
  const Rows rows{.bound = bound, .live = p.dry() ? bound : sequences.count()};
  const Value<Replicated> y_SC{&p, p.make(rows, p.shape(x_RC.node).columns, p.element(x_RC.node))};
  p.run(LastRows{{}, x_RC.node, y_SC.node});
  return y_SC;
}

}  // namespace dsx
