// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Lazy logits and the cross entropy that reads them chunk by chunk, so that no buffer holds all logits of a row.
///
///     Logits logits = head(x);                       // nothing is computed yet
///     Node sum = cross_entropy(logits, 4096);        // over counted targets; the tensor axis cuts the vocabulary
#pragma once

#include <dsx/kernels/matmul.hpp>
#include <dsx/kernels/token_loss.hpp>
#include <dsx/ops/fan.hpp>

namespace dsx {

/// hidden x transpose(table), by whoever needs it: a loss in chunks, a generator for its last rows.
struct Logits {
  Value<Replicated> hidden_RC{};
  Slot table = 0;
  Range mine{};           // vocabulary entries on this rank
  Extent vocabulary = 0;
  void values(auto&& visit) { visit(hidden_RC); }
  /// Tells a probe how the table is used, though no loss reads it there.
  void use_weights() const {
    Pass& p = *hidden_RC.pass;
    if (p.trained(table)) (void)p.weight_gradient(table, p.partial<Replicated>(table));
  }
};

/// Work is shared between the three passes over the vocabulary: forward folds each chunk into the softmax's state; backward
/// computes a chunk's logits once more and uses them for both gradients, so towards_inputs serves the weights as well.
struct CrossEntropy : Operation {
  static constexpr const char* name = "cross_entropy";
  Node hidden, state, loss;
  Slot table;
  Range mine;
  Extent chunk;
  Axes partial;

  Cost cost(Pass& p) const { return {2.0 * double(p.shape(hidden).size()) * double(mine.size())}; }
  void forward(Pass& p) const {
    {
      const auto scope = p.scratch_scope();
      const Chunks c{*this, p};
      for (Range part = c.first(); part.size() > 0; part = c.next(part)) {
        c.compute(p, part);
        p.launch(kernels::softmax_chunk, c.logits(part), targets(p), global(part), p.view(state), part.begin == 0);
      }
    }
    combine(p);
    p.launch(kernels::token_loss, p.view(state), targets(p), p.view(loss));
  }
  void towards_inputs(Pass& p) const {
    Grad dhidden = p.gradient(hidden);
    const bool trained = p.trained(table);
    const Grad dtable = trained ? p.weight_gradient(table, partial) : Grad{};
    const View weight = p.incoming(loss);
    const auto scope = p.scratch_scope();
    const Chunks c{*this, p};
    for (Range part = c.first(); part.size() > 0; part = c.next(part)) {
      c.compute(p, part);
      const auto pull = [](View logits, std::span<const int> targets, Range chunk, View state, View weight) {
        kernels::softmax_chunk_pullback(logits, targets, chunk, state, *weight.pointer<double>());
      };
      p.launch(pull, c.logits(part), targets(p), global(part), p.view(state), weight);
      const View dlogits = c.narrowed(p, part);
      p.launch(kernels::matmul, kernels::Matrix{dlogits}, kernels::Matrix{p.weight(table).rows(part)}, dhidden, kernels::Epilogue{}, c.packing);
      dhidden.accumulate = true;
      if (trained)
        p.launch(kernels::matmul, kernels::Matrix{dlogits, true}, kernels::Matrix{p.view(hidden)}, Grad{dtable.view.rows(part), dtable.accumulate},
                 kernels::Epilogue{}, c.packing);
    }
  }

 private:
  /// Buffers for one chunk of logits, reused for all.
  struct Chunks {
    Extent total, chunk, rows;
    View wide_logits, narrow_logits, packing;
    Node hidden;
    Slot table;

    Chunks(const CrossEntropy& op, Pass& p)
        : total{op.mine.size()},
          chunk{std::min(op.chunk, std::max<Extent>(op.mine.size(), 1))},
          rows{p.shape(op.hidden).rows},
          hidden{op.hidden},
          table{op.table} {
      const View h = p.planned(hidden), w = p.weight(table);
      const Element e = p.element(hidden);
      wide_logits = p.scratch({h.shape.rows, chunk}, wide(e));
      narrow_logits = e == wide(e) ? wide_logits : p.scratch({h.shape.rows, chunk}, e);
      const View part = w.rows({0, std::min(chunk, w.shape.rows)});
      packing =
          p.scratch_bytes(std::max({kernels::matmul_scratch({h}, {part, true}, wide_logits), kernels::matmul_scratch({narrow_logits}, {part}, h),
                                    kernels::matmul_scratch({narrow_logits, true}, {h}, part)}));
    }
    Range first() const { return {0, std::min(chunk, total)}; }
    Range next(Range part) const { return {part.end, std::min(part.end + chunk, total)}; }
    View logits(Range part) const { return wide_logits.reshaped({rows, part.size()}); }
    void compute(Pass& p, Range part) const {
      p.launch(kernels::matmul, kernels::Matrix{p.view(hidden)}, kernels::Matrix{p.weight(table).rows(part), true}, Grad{logits(part), false},
               kernels::Epilogue{}, packing);
    }
    View narrowed(Pass& p, Range part) const {
      if (narrow_logits.element == wide_logits.element) return logits(part);
      const View narrow = narrow_logits.reshaped({rows, part.size()});
      p.launch(kernels::copy, logits(part), narrow);
      return narrow;
    }
  };
  std::span<const int> targets(Pass& p) const { return p.batch().targets; }
  Range global(Range part) const { return {mine.begin + part.begin, mine.begin + part.end}; }

  /// Each rank of the tensor axis has seen its part of the vocabulary.
  void combine(Pass& p) const {
    if (p.tensor().size() == 1) return;
    const View s = p.view(state);
    const auto scope = p.scratch_scope();
    const Shape planned{p.planned(state).shape.rows, 1};
    const View top = p.scratch(planned, s.element).rows({0, s.shape.rows}), sums = p.scratch({planned.rows, 2}, s.element).rows({0, s.shape.rows});
    p.launch(kernels::copy_columns, s, Range{0, 1}, top, Range{0, 1});
    p.tensor().all_reduce(top, Combine::max).wait();
    p.launch(kernels::softmax_rescale, s, top);
    p.launch(kernels::copy_columns, s, Range{1, 3}, sums, Range{0, 2});
    p.tensor().all_reduce(sums).wait();
    p.launch(kernels::copy_columns, sums, Range{0, 2}, s, Range{1, 3});
  }
};
/// The sum over counted targets, in f64, on every rank of the tensor axis.
inline Node cross_entropy(const Logits& logits, Extent chunk) {
  Pass& p = *logits.hidden_RC.pass;
  const Node hidden = logits.hidden_RC.node;
  for (const int t : p.batch().targets)
    if (t >= 0 && Extent(t) >= logits.vocabulary) fail<306>("target ", t, " of a vocabulary of ", logits.vocabulary);
  const auto state = p.make<Replicated>(3, wide(p.element(hidden)));
  const Node loss = p.make_scalar(Element::f64);
  p.run(CrossEntropy{{}, hidden, state.node, loss, logits.table, logits.mine, chunk, p.partial<Replicated>(logits.table)});
  return loss;
}

/// All logits of this rank's vocabulary entries, for few rows: a generator's, a test's.
struct AllLogits : Operation {
  static constexpr const char* name = "logits";
  Node hidden, y;
  Slot table;
  void forward(Pass& p) const {
    const auto scope = p.scratch_scope();
    const View packing = p.scratch_bytes(kernels::matmul_scratch({p.planned(hidden)}, {p.weight(table), true}, p.planned(y)));
    p.launch(kernels::matmul, kernels::Matrix{p.view(hidden)}, kernels::Matrix{p.weight(table), true}, Grad{p.view(y), false}, kernels::Epilogue{},
             packing);
  }
  void towards_inputs(Pass&) const { fail<402>("whole logits have no pullback; a loss reads them in chunks"); }
};
inline Value<Sharded> all_logits(const Logits& logits) {
  Pass& p = *logits.hidden_RC.pass;
  const Node hidden = logits.hidden_RC.node;
  const Value<Sharded> y{&p, p.make(p.rows(hidden), logits.mine.size(), wide(p.element(hidden)))};  // of rows that may have been picked
  p.run(AllLogits{{}, hidden, y.node, logits.table});
  return y;
}

}  // namespace dsx
