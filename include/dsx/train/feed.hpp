// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A data rank's micro-batches by step, from a token file. The step number alone says which sequences: a resumed run goes on with
/// the same ones, and so does a run on another number of ranks.
///
///     Feed feed{tokens, mesh, {.batch = 16, .context = 128, .micro_batches = 2}};
///     trainer.step(feed.at(trainer.steps()));
#pragma once

#include <dsx/comm/mesh.hpp>
#include <dsx/data/batches.hpp>
#include <dsx/data/corpus.hpp>
#include <dsx/data/token_file.hpp>
#include <dsx/train/micro_batch.hpp>

namespace dsx {

/// On all ranks; the root first, for it may have to train a tokenizer and write token files that the others then find.
inline Corpus open_corpus(const CorpusOptions& options, const Mesh& mesh) {
  std::optional<Corpus> corpus;
  if (mesh.session().is_root()) corpus = open_corpus(options);
  mesh.world().barrier();
  return corpus ? *corpus : open_corpus(options);
}

struct FeedOptions {
  Extent batch = 1;          // sequences of a step on all ranks together
  Extent context = 1;        // tokens of a sequence
  Extent micro_batches = 1;  // of a step, on each data rank
  std::uint64_t seed = 0;
  bool by_grains = false;  // micro-batch j of data rank r holds the (j x ranks + r)th sequences of a step, not the (r x micro-batches + j)th
};

/// Tokens of a micro-batch on a data rank: what a trainer plans its memory for. dsx-E308 if the ranks can't share the batch.
inline Extent rows_of(const FeedOptions& o, const Mesh& mesh) {
  const Extent parts = mesh.size(Axes::data) * o.micro_batches;
  if (parts == 0 || o.batch == 0 || o.batch % parts != 0)
    fail<308>("a batch of ", o.batch, " sequences can't be shared by ", mesh.size(Axes::data), " data ranks in ", o.micro_batches,
              " micro-batches each");
  return o.batch / parts * o.context;
}

class Feed {
 public:
  Feed(TokenFile tokens, const Mesh& mesh, FeedOptions options)
      : tokens_{std::move(tokens)},
        options_{options},
        rows_{rows_of(options, mesh)},
        rank_{mesh.coordinate(Axes::data)},
        ranks_{mesh.size(Axes::data)},
        window_(options.context + 1),
        batches_(options.micro_batches) {
    for (MicroBatch& b : batches_) b.reserve(rows_, rows_ / options.context);
  }

  /// Of a training step; valid until the next call.
  std::span<const MicroBatch> at(Extent step) {
    const TrainingWindows windows{tokens_.size(), options_.context, options_.seed};
    fill([&](Extent sequence) { return windows.at(step * options_.batch + sequence); }, options_.batch);
    return batches_;
  }
  /// The first `count` of the windows that follow each other through the file, for judging; 0: all. f(micro-batches) is called with
  /// equally many on every data rank; those at the end may be empty.
  void in_order(Extent count, auto f) {
    const ValidationWindows windows{tokens_.size(), options_.context};
    count = count == 0 ? windows.count() : std::min(count, windows.count());
    for (Extent first = 0; first < count; first += options_.batch) {
      fill([&](Extent sequence) { return windows.at(first + sequence); }, std::min(options_.batch, count - first));
      f(std::span<const MicroBatch>{batches_});
    }
  }

 private:
  void fill(auto window_of, Extent sequences) {
    const Extent each = rows_ / options_.context;
    for (Extent m = 0; m < batches_.size(); ++m) {
      batches_[m].clear();
      const Extent begin = (options_.by_grains ? m * ranks_ + rank_ : rank_ * batches_.size() + m) * each;
      for (Extent s = begin; s < std::min(begin + each, sequences); ++s) {
        tokens_.copy(window_of(s).range(), window_);
        const std::span<const int> w{window_};
        batches_[m].add(w.first(options_.context), w.last(options_.context), s * options_.context);
      }
    }
  }

  TokenFile tokens_;
  FeedOptions options_;
  Extent rows_, rank_, ranks_;
  std::vector<int> window_;
  std::vector<MicroBatch> batches_;
};

/// The mean loss over windows in order, by a trainer's Evaluator.
template <class Evaluator>
double judged(Evaluator& evaluator, Feed& feed, Extent count) {
  double sum = 0, targets = 0;
  feed.in_order(count, [&](std::span<const MicroBatch> batches) {
    const auto [loss, n] = evaluator.sums(batches);
    sum += loss, targets += n;
  });
  return targets > 0 ? sum / targets : 0;
}

}  // namespace dsx
