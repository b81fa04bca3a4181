// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Text from a language model: greedy, sampled or by beam search, over a cache of keys and values or without one.
///
///     Generator generator{weights, {.sequences = 2, .length = 1024, .vocabulary = 50257}};
///     auto texts = generator.generate(prompts, 100, {.temperature = 0.8, .top_p = 0.95}, [](Extent sequence, int token) { ... });
///
/// It borrows weights in any layout: every rank calls generate() with the same arguments and gets the same tokens.
#pragma once

#include <dsx/infer/beam.hpp>
#include <dsx/infer/cache.hpp>
#include <dsx/infer/sampling.hpp>
#include <dsx/ops/last_rows.hpp>
#include <dsx/train/micro_batch.hpp>
#include <dsx/train/stage.hpp>

namespace dsx {

struct GeneratorOptions {
  Extent sequences = 1;   // at once; beam search takes one a beam
  Extent length = 1;      // the most tokens of a sequence, its prompt included
  Extent vocabulary = 1;  // entries of the model's head
  bool cached = true;     // else each token costs a pass over all before it
};

/// What a generator gives to the stage in place of a loss: the logits of each sequence's last row go into `into`.
struct NextLogits {
  Extent sequences = 0;
  View into{};  // whole vocabulary; this rank fills its part

  Counts counts(const Batch&) const { return {}; }
  void operator()(const Logits& logits, const Counts&) const {
    Pass& p = *logits.hidden_RC.pass;
    if (logits.vocabulary != into.shape.columns)
      fail<724>("a model with a vocabulary of ", logits.vocabulary, " in a generator for ", into.shape.columns);
    Logits next = logits;
    next.hidden_RC = last_rows(logits.hidden_RC, sequences);
    const auto y_SV = all_logits(next);
    const auto take = [](View from, View to, Range mine) { kernels::copy_columns(from, {0, mine.size()}, to.rows({0, from.shape.rows}), mine); };
    p.launch(take, p.view(y_SV.node), into, logits.mine);
  }
};
static_assert(Objective<NextLogits, Logits>);

template <class Weights>
class Generator {
 public:
  /// Is told each token as it is made, by every rank.
  using Listener = std::function<void(Extent sequence, int token)>;

  Generator(Weights& weights, GeneratorOptions options)
      : options_{options}, memory_{&weights.mesh().session().memory},
        logits_{memory_->keep(Category::state, {options.sequences, options.vocabulary}, wide(weights.elements().value))},
        stage_{weights, NextLogits{options.sequences, logits_}}, cache_{*memory_, options.sequences, options.length},
        prompts_{weights, options.sequences * options.length}, tokens_{weights, options.sequences} {
    if (options.cached) prompts_.sweep.attend(cache_), tokens_.sweep.attend(cache_);
    memory_->dry() ? learn() : rehearse();
  }
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  /// The new tokens of each prompt, an end among them where one came. dsx-E720 to E723 for what can't be.
  std::vector<std::vector<int>> generate(std::span<const std::vector<int>> prompts, Extent tokens, const Decoding& how,
                                         const Listener& listener = {}) {
    check(how);
    std::vector<std::vector<int>> made(prompts.size());
    if (how.beams > 1) {
      for (Extent s = 0; s < prompts.size(); ++s) {
        made[s] = search(prompts[s], tokens, how).tokens;
        for (const int token : made[s])
          if (listener) listener(s, token);
      }
      return made;
    }
    begin(prompts, tokens);
    for (Extent turn = 0; turn < tokens && !open_.empty(); ++turn) {
      pass();
      std::vector<Sequence> going_on;
      for (Extent row = 0; row < open_.size(); ++row) {
        Sequence& s = open_[row];
        const int token = choose(logits_of(row), how, s.number, turn);
        made[s.number].push_back(token), s.tokens.push_back(token);
        if (listener) listener(s.number, token);
        if (!how.is_end(token)) going_on.push_back(std::move(s));
      }
      open_ = std::move(going_on);
    }
    return made;
  }

  /// The best new tokens by beam search, with their score.
  Beam search(const std::vector<int>& prompt, Extent tokens, const Decoding& how) {
    check(how);
    if (how.beams > options_.sequences) fail<721>(how.beams, " beams in a generator for ", options_.sequences, " sequences");
    begin({&prompt, 1}, tokens);
    BeamSearch search{how.beams, how.length_penalty, how.ends};
    for (Extent turn = 0; turn < tokens && !search.done(); ++turn) {
      pass();
      std::vector<std::vector<double>> rows;
      for (Extent row = 0; row < open_.size(); ++row) rows.push_back(logits_of(row)), log_softmax(rows.back());
      search.advance(rows);
      follow(search.beams());
    }
    return search.best();
  }

  /// The logits behind the last token of each prompt.
  std::vector<std::vector<double>> next_logits(std::span<const std::vector<int>> prompts) {
    begin(prompts, 0);
    pass();
    std::vector<std::vector<double>> rows;
    for (Extent row = 0; row < open_.size(); ++row) rows.push_back(logits_of(row));
    return rows;
  }

  /// The most tokens of a sequence.
  Extent length() const { return options_.length; }

 private:
  /// One kind of pass, with a plan of its own: prompts have many rows, a turn has one a sequence.
  struct Run {
    Extent rows;
    Sweep sweep;
    Run(const Weights& weights, Extent bound) : rows{bound}, sweep{weights} {}
  };
  struct Sequence {
    Extent number = 0, slot = 0;
    std::vector<int> tokens{};
  };

  void begin(std::span<const std::vector<int>> prompts, Extent tokens) {
    if (prompts.size() > options_.sequences) fail<721>(prompts.size(), " prompts in a generator for ", options_.sequences, " sequences");
    open_.clear();
    for (Extent s = 0; s < prompts.size(); ++s) {
      if (prompts[s].empty()) fail<722>("prompt ", s, " has no token; begin with the end of text");
      if (prompts[s].size() + tokens > options_.length)
        fail<720>("a prompt of ", prompts[s].size(), " and ", tokens, " new tokens are more than the ", options_.length,
                  " positions of the model or plan");
      cache_.clear(s);
      open_.push_back({s, s, prompts[s]});
    }
  }
  Extent known(const Sequence& s) const { return options_.cached ? cache_.length(s.slot) : 0; }

  /// Runs what the model hasn't seen of each open sequence; logits of row i are those behind sequence i.
  void pass() {
    batch_.clear(), slots_.clear();
    for (const Sequence& s : open_) {
      const auto rest = std::span<const int>{s.tokens}.subspan(known(s));
      unknown_.assign(rest.size(), -1);
      batch_.add(rest, unknown_, 0, int(known(s)));
      slots_.push_back(s.slot);
    }
    Run& run = batch_.rows() > tokens_.rows || !options_.cached ? prompts_ : tokens_;
    forward(run, batch_.view(run.rows));
    cache_.commit(batch_.view(run.rows).sequences);
  }
  void forward(Run& run, const Batch& batch) {
    const Mesh& mesh = stage_.mesh();
    cache_.begin(slots_);
    mesh.session().launch(kernels::zero, logits_);
    run.sweep.forward(stage_, batch, {});
    for (const Axes axis : {Axes::tensor, Axes::pipe}) mesh.along(axis).all_reduce(logits_).wait();  // every rank chooses by itself
    // Equal rows may part in the last bit where experts compute them side by side; ranks must not.
    if (mesh.size(Axes::expert) > 1) mesh.along(Axes::expert).broadcast(logits_, 0).wait();
  }
  std::vector<double> logits_of(Extent row) const {
    std::vector<double> values(options_.vocabulary);
    dispatch(logits_.element, [&](auto zero) {
      using T = decltype(zero);
      std::copy_n(logits_.rows({row, row + 1}).template pointer<T>(), values.size(), values.begin());
    });
    return values;
  }
  /// Each beam gets its parent's cache: its first child takes it over, others copy it.
  void follow(const std::vector<Beam>& beams) {
    std::vector<Sequence> next;
    std::vector<bool> taken(options_.sequences, false), inherited(open_.size(), false);
    for (const Beam& b : beams) taken[open_[b.parent].slot] = true;
    for (const Beam& b : beams) {
      Sequence child = open_[b.parent];
      child.tokens.push_back(b.tokens.back());
      if (inherited[b.parent]) {
        child.slot = Extent(std::find(taken.begin(), taken.end(), false) - taken.begin());
        taken[child.slot] = true;
        cache_.copy(open_[b.parent].slot, child.slot);
      }
      inherited[b.parent] = true;
      next.push_back(std::move(child));
    }
    open_ = std::move(next);
  }

  void learn() {
    const auto peaks = memory_->peaks();
    for (Run* run : {&prompts_, &tokens_}) forward(*run, {.bound = run->rows});
    memory_->forget_since(peaks);
    for (Run* run : {&prompts_, &tokens_}) run->sweep.learned(), forward(*run, {.bound = run->rows});
  }
  void rehearse() {
    Session twin = stage_.mesh().session().dry_twin();
    const Mesh dry_mesh{twin, stage_.mesh().degrees()};
    Weights dry_weights = stage_.weights().on(dry_mesh);
    Generator dry{dry_weights, options_};
    memory_->reserve_as(twin.memory);
    cache_.take_layers(dry.cache_);
    prompts_.sweep.plan_as(dry.prompts_.sweep), tokens_.sweep.plan_as(dry.tokens_.sweep);
    batch_.reserve(prompts_.rows, options_.sequences);
  }

  GeneratorOptions options_;
  Memory* memory_;
  View logits_;
  Stage<Weights, NextLogits> stage_;
  KeyValueCache cache_;
  Run prompts_, tokens_;
  MicroBatch batch_{};
  std::vector<Extent> slots_{};
  std::vector<int> unknown_{};
  std::vector<Sequence> open_{};
};

}  // namespace dsx
