// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A step is three verbs: accumulate (all micro-batches, by the schedule's program), verdict, commit.
///
///     Trainer trainer{weights, AdamW{.rate = 3e-4}, TokenLoss{}, {.micro_batches = 4, .rows = 2 * 1024}};
///     const Verdict verdict = trainer.step(micro_batches);   // this data rank's
#pragma once

#include <dsx/optim/optimizer.hpp>
#include <dsx/train/micro_batch.hpp>
#include <dsx/train/stage.hpp>
#include <dsx/weights/update.hpp>

#include <cmath>
#include <limits>

namespace dsx {

struct TrainerOptions {
  Extent micro_batches = 1;  // a step, on each data rank
  Extent rows = 1;           // the most tokens of a micro-batch: memory is planned for them
  double clip = 0;           // largest global norm of the gradient; 0: none
  std::uint64_t seed = 0;    // of dropout
};

template <class Weights, class Optimizer, class Objective>
class Trainer {
 public:
  Trainer(Weights& weights, Optimizer optimizer, Objective objective, TrainerOptions options)
      : stage_{weights, std::move(objective)},
        memory_{&weights.mesh().session().memory},
        optimizer_{std::move(optimizer)},
        options_{options},
        exact_{weights.fixed_grains()} {
    const auto schedule = weights.recipe().template get<ScheduleSlot>();
    const Mesh& mesh = weights.mesh();
    const Extent stages = mesh.size(Axes::pipe);
    const ScheduleReport report = check(schedule, stages, options.micro_batches);
    if (!report.correct()) fail<105>("with ", stages, " stages and ", options.micro_batches, " micro-batches ", report.why);
    program_ = schedule.program(mesh.coordinate(Axes::pipe), stages, options.micro_batches);
    claim_weights();
    const OnException release{[&] { release_weights(); }};
    weights.bundles().keep_sums(options.micro_batches);
    for (Extent chunk = 0; chunk < weights.ranges().size(); ++chunk) {
      auto& [lives, flights] = chunks_.emplace_back();
      for (Extent i = 0; i < program_.live(chunk); ++i)
        flights.emplace_back(mesh, lives, PassOptions{weights.elements().value, options.seed, true, weights.activations_rest()}, chunk);
      if (exact_)
        for (Flight& f : flights) f.pass.losses = &losses_;
    }
    memory_->dry() ? learn() : rehearse();
  }
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;
  ~Trainer() { release_weights(); }

  /// This data rank's micro-batches; every rank of its tensor and pipe axes gives the same ones. Throws dsx-E409, on all ranks
  /// and before anything is changed, if the loss or a gradient isn't finite.
  Verdict step(std::span<const MicroBatch> batches) {
    accumulate(batches);
    const Verdict v = verdict();
    if (!v.finite) refuse(v);
    commit(v);
    return v;
  }

  void accumulate(std::span<const MicroBatch> batches) {
    const bool dry = memory_->dry();
    if (!dry && batches.size() != options_.micro_batches)
      fail<304>(batches.size(), " micro-batches given to a trainer that was planned for ", options_.micro_batches);
    const kernels::FixedProducts products{exact_};
    Bundles& bundles = weights().bundles();
    counts_ = reduced_counts(batches);
    if (!(counts_.targets > 0)) fail<304>("no micro-batch of step ", steps_ + 1, " has a counted target, on any rank");
    loss_ = 0, losses_ = {}, flops_ = 0;
    bundles.begin_step(steps_ < exact_steps_of(optimizer_));
    // A step after one that threw begins as any other.
    const OnException abandon{[&] { bundles.abandon(), each_flight([](Flight& f) { f.pass.abandon(); }); }};
    const StackScope scratch{memory_->scratch};
    for (const auto [is_forward, m, chunk] : program_.instructions) {
      auto& flights = chunks_[chunk].flights;
      Flight& flight = flights[m % flights.size()];
      if (is_forward) {
        flops_ += flight.pass.flops;
        Batch batch = dry ? Batch{.bound = options_.rows} : batches[m].view(options_.rows);
        batch.step_rows = counts_.rows;
        stage_.forward(flight, batch, counts_, std::uint32_t(steps_));
        loss_ += flight.pass.loss;
      } else {
        stage_.backward(flight);
      }
    }
    each_flight([&](Flight& f) { flops_ += f.pass.flops, f.pass.close(); });
    bundles.finish();
  }

  /// One reduction over the world: the global norm, each class counted once, and the loss.
  Verdict verdict() {
    const std::array<double, 2> sums = exact_ ? exact_sums() : this->sums();  // stages and terms add up
    Verdict v{.squared_norm = sums[0], .loss = sums[1], .finite = std::isfinite(sums[0]) && std::isfinite(sums[1]), .step = steps_ + 1};
    if (options_.clip > 0) v.scale = std::min(1.0, options_.clip / (std::sqrt(v.squared_norm) + 1e-6));
    return v;
  }

  void commit(const Verdict& verdict) {
    ++steps_;
    const kernels::FixedProducts products{exact_};
    update_where_states_rest(mesh().session(), weights().bundles().all(), [&](Bundle& b) { optimizer_.update(b, verdict, mesh()); });
    weights().bundles().publish();
  }

  Optimizer& optimizer() { return optimizer_; }
  Weights& weights() const { return stage_.weights(); }
  const Mesh& mesh() const { return stage_.mesh(); }
  const TrainerOptions& options() const { return options_; }
  Extent steps() const { return steps_; }
  void resume_at(Extent steps) { steps_ = steps; }
  double flops() const { return flops_; }              // of the last step on this rank
  double targets() const { return counts_.targets; }   // of the last step in the whole world

 private:
  void claim_weights() {
    for (const Bundle& b : weights().bundles().all())
      if (b.in_training) fail<410>("these weights have a trainer, whose state of ", b.segments.front().path, " would be lost; end it first");
    const OnException release{[&] { release_weights(); }};
    for (Bundle& b : weights().bundles().all()) {
      b.in_training = true;
      if (!b.kind.trained) continue;
      b.own_sum = reduction_of(optimizer_, b, mesh());
      if (b.own_sum && b.codecs.reduction)
        fail<122>("the quantizer packs gradients of ", b.segments.front().path, " as ", b.codecs.reduction->name(), " for their sum over ",
                  to_text(b.summed_whole()),
                  ", but the optimizer sums its momentum over them in its own way, as 1-bit Adam does; keep one of the two");
      if (b.own_sum && exact_)
        fail<126>("the optimizer sums its momentum of ", b.segments.front().path, " over ", to_text(b.summed_whole()),
                  " in its own way, as 1-bit Adam does, and the summation policy asks for sums that no layout changes; drop one of the two");
      for (const StateSpec& state : optimizer_.states(b.kind)) {
        const Codec* const codec = b.codecs.state;
        b.states.push_back(memory_->keep(Category::state, {codec ? codec->packed_bytes(b.mine.size()) : b.mine.size(), 1},
                                         codec ? Element::u8 : b.elements.master, b.tier(Kind::state)));
        b.squares.push_back(state.squares);
      }
    }
  }
  void release_weights() {
    for (Bundle& b : weights().bundles().all()) {
      for (const View& state : b.states) memory_->give_back(Category::state, state, b.tier(Kind::state));
      b.states.clear(), b.squares.clear(), b.loading.clear(), b.own_sum.reset(), b.in_training = false;
    }
    weights().bundles().give_back_sums();
  }
  std::array<double, 2> sums() {
    std::array<double, 2> sums{weights().bundles().squared_norm(), loss_};
    mesh().world().all_reduce(whole(sums)).wait();
    return sums;
  }
  std::array<double, 2> exact_sums() {
    ExactSum norm = weights().bundles().exact_squared_norm();
    all_reduce_exactly(mesh().world(), norm, losses_);
    return {norm.value(), losses_.value()};
  }
  static View whole(std::array<double, 2>& sums) { return {sums.data(), {sums.size(), 1}, Element::f64}; }

  Counts reduced_counts(std::span<const MicroBatch> batches) {
    std::array<double, 2> sums{};
    for (const MicroBatch& b : batches) sums[0] += stage_.objective().counts(b.view(options_.rows)).targets, sums[1] += double(b.rows());
    mesh().along(Axes::data).all_reduce(whole(sums)).wait();
    return {memory_->dry() ? 1 : sums[0], sums[1]};
  }

  /// All ranks find the first bad tensor and the first rank that has it.
  [[noreturn]] void refuse(const Verdict& v) {
    weights().bundles().forget_owed();
    const auto& records = weights().records();
    const std::string path = weights().bundles().first_not_finite();
    const Extent ranks = mesh().session().ranks(), rank = mesh().session().rank();
    std::array<double, 2> worst{};
    for (Extent i = 0; i < records.size(); ++i)
      if (records[i].path == path) worst[0] = double((records.size() - i) * ranks + (ranks - 1 - rank));
    mesh().world().all_reduce(whole(worst), Combine::max).wait();
    const Extent code = Extent(worst[0]);
    const std::string where = code == 0 ? std::string{"; every gradient is finite"}
                                        : concat("; the first tensor whose gradient isn't finite is ", records[records.size() - code / ranks].path,
                                                 ", on rank ", ranks - 1 - code % ranks);
    fail<409>("step ", v.step, ": the loss is ", v.loss, ", the gradient's norm ", std::sqrt(v.squared_norm), where);
  }

  /// Dry: a first step learns where each value must live, a second counts bytes.
  void learn() {
    const auto peaks = memory_->peaks();
    accumulate({});
    for (Chunk& c : chunks_) c.lives.known = true;
    memory_->forget_since(peaks);
    each_flight([](Flight& f) { f.pass.forget_peaks(); });
    const auto plan_after = [&](Extent steps) {
      mesh().session().traffic.clear();
      steps_ = steps, step({});
    };
    plan_after(0);
    if (const Extent exact = exact_steps_of(optimizer_); exact > 0) plan_after(exact);  // most steps are as these: theirs is the traffic
    steps_ = 0;
  }
  /// The same program on a dry twin; its peaks size the arenas.
  void rehearse() {
    Session twin = mesh().session().dry_twin();
    const Mesh dry_mesh{twin, mesh().degrees()};
    Weights dry_weights = weights().on(dry_mesh);
    Trainer dry{dry_weights, optimizer_, stage_.objective(), options_};
    memory_->reserve_as(twin.memory);
    for (Extent c = 0; c < chunks_.size(); ++c) {
      chunks_[c].lives = dry.chunks_[c].lives;
      for (Extent i = 0; i < chunks_[c].flights.size(); ++i) chunks_[c].flights[i].pass.plan_as(dry.chunks_[c].flights[i].pass);
    }
  }
  void each_flight(auto f) {
    for (Chunk& c : chunks_)
      for (Flight& flight : c.flights) f(flight);
  }

  /// One chunk's passes, and what a pass of it learnt of its nodes.
  struct Chunk {
    Lifetimes lives{};
    std::deque<Flight> flights{};
  };

  Stage<Weights, Objective> stage_;
  Memory* memory_;
  Optimizer optimizer_;
  TrainerOptions options_;
  bool exact_;
  Program program_{};
  std::deque<Chunk> chunks_{};
  Counts counts_{};
  double loss_ = 0, flops_ = 0;
  ExactSum losses_{};
  Extent steps_ = 0;
};

/// The loss of batches that aren't learned from.
template <class Weights, class Objective>
class Evaluator {
 public:
  /// `rows`: the most tokens of a micro-batch on a data rank.
  Evaluator(Weights& weights, Objective objective, Extent rows)
      : stage_{weights, std::move(objective)}, memory_{&weights.mesh().session().memory}, rows_{rows},
        counts_here_{weights.mesh().coordinate(Axes::tensor) == 0 && weights.ranges().back().end == weights.model().size()}, sweep_{weights} {
    memory_->dry() ? learn() : rehearse();
  }
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

  /// The mean over the counted targets of all ranks' micro-batches; every data rank gives equally many (maybe empty) ones.
  double loss(std::span<const MicroBatch> batches) {
    const auto [losses, targets] = this->sums(batches);
    return targets > 0 ? losses / targets : std::numeric_limits<double>::quiet_NaN();
  }
  /// Of losses and of counted targets, over all ranks.
  std::array<double, 2> sums(std::span<const MicroBatch> batches) {
    std::array<double, 2> sums{};
    ExactSum losses, targets;
    const bool dry = memory_->dry(), exact = stage_.weights().fixed_grains();
    const kernels::FixedProducts products{exact};
    const StackScope scratch{memory_->scratch};
    for (Extent m = 0; m < (dry ? 1 : batches.size()); ++m) {
      const Batch batch = dry ? Batch{.bound = rows_} : batches[m].view(rows_);
      sums[0] += sweep_.forward(stage_, batch, Counts{1}, exact ? &losses : nullptr);
      if (counts_here_ && !dry) sums[1] += stage_.objective().counts(batch).targets;
    }
    if (exact) {
      targets.add(sums[1]);
      all_reduce_exactly(stage_.mesh().world(), losses, targets);
      return {losses.value(), targets.value()};
    }
    stage_.mesh().world().all_reduce({sums.data(), {2, 1}, Element::f64}).wait();
    return sums;
  }

 private:
  void learn() {
    const auto peaks = memory_->peaks();
    loss({});
    memory_->forget_since(peaks);
    sweep_.learned();
    loss({});
  }
  void rehearse() {
    Session twin = stage_.mesh().session().dry_twin();
    const Mesh dry_mesh{twin, stage_.mesh().degrees()};
    Weights dry_weights = stage_.weights().on(dry_mesh);
    Evaluator dry{dry_weights, stage_.objective(), rows_};
    memory_->reserve_as(twin.memory);
    sweep_.plan_as(dry.sweep_);
  }

  Stage<Weights, Objective> stage_;
  Memory* memory_;
  Extent rows_;
  bool counts_here_;
  Sweep sweep_;
};

}  // namespace dsx
