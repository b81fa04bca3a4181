// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Twenty clipped steps of the toy GPT-2 in one cell of the first product (policies, layout, optimizer, precision), each step
/// held against the formulas of formulas.hpp and the dry plan; and the distance between two such runs.
///
///     const toy::Run one = toy::train({}), many = toy::train({toy::Sharding::zero_3, {.data = 2}});
///     CHECK(many.complaints.empty());
///     CHECK(toy::distance(many, one) <= 1e-12);
#pragma once

#include "formulas.hpp"

#include <dsx/optim/any_optimizer.hpp>

#include <algorithm>
#include <mutex>

namespace toy {

inline constexpr Extent steps = 20;
inline constexpr double clip = 0.3;

inline AnyOptimizer optimizer_of(Rule rule) {
  // A larger epsilon than usual: a key's bias has no gradient but rounding noise, which Adam would blow up to whole steps.
  const AdamW adamw{.rate = 3e-3, .epsilon = 1e-4};
  switch (rule) {
    case Rule::sgd:
      return {Sgd{.rate = 0.1, .momentum = 0.9}};
    case Rule::adamw:
      return {adamw};
    case Rule::muon:
      return {Muon{.rate = 1e-2, .others = adamw}};
    case Rule::one_bit_adam:
      return {OneBitAdam{.rate = 3e-3, .epsilon = 1e-4, .freeze_step = 2}};
  }
  return {adamw};
}

/// A precision given by its elements.
struct GivenElements {
  using Slot = PrecisionSlot;
  Elements chosen;
  Elements elements() const { return chosen; }
};

/// An offload given by its tiers.
struct GivenTiers {
  using Slot = OffloadSlot;
  std::array<Tier, kinds> chosen;
  Tier rests(Kind kind, const ParameterInfo&) const { return chosen[Extent(kind)]; }
  DiskOptions disk() const { return {.resident_bytes = pool}; }
  static constexpr Extent pool = 128_KiB;
};

/// A quantizer given by its codecs.
struct GivenCodecs {
  using Slot = QuantizerSlot;
  Codecs chosen;
  const Codec* codec(QuantSite site, const ParameterInfo&) const {
    return site == QuantSite::gather      ? chosen.gather
           : site == QuantSite::reduction ? chosen.reduction
           : site == QuantSite::state     ? chosen.state
                                          : nullptr;
  }
  bool feedback(const ParameterInfo&) const { return chosen.feedback; }
};

inline AnyRecipe recipe_of(const Cell& c) {
  const auto sharding = [&]() -> AnySharding {
    switch (c.sharding) {
      case Sharding::replicate:
        return Replicate{};
      case Sharding::zero_1:
        return ZeRO<1>{};
      case Sharding::zero_2:
        return ZeRO<2>{};
      case Sharding::zero_3:
        return ZeRO<3>{};
      case Sharding::hpz:
        return HpZ{};
      case Sharding::mics:
        return MiCS{};
    }
    return Replicate{};
  }();
  const AnySchedule schedules[] = {SingleStage{}, GPipe{}, OneForwardOneBackward{}, Interleaved<2>{}};
  return {sharding,
          schedules[int(c.schedule)],
          AnyOffload{GivenTiers{c.rests}},
          AnyPrecision{GivenElements{c.elements}},
          AnyQuantizer{GivenCodecs{c.codecs}},
          c.recompute ? AnyRecompute{RecomputeUnits{}} : AnyRecompute{},
          c.reproducible ? AnySummation{Reproducible{}} : AnySummation{}};
}

inline TrainerOptions options_of(const Cell& c) { return {.micro_batches = c.micro_batches, .rows = c.feed().rows(), .clip = clip, .seed = 3}; }

struct Tensor {
  std::string path;
  std::vector<double> values;
  bool operator==(const Tensor&) const = default;
};
struct Run {
  std::vector<double> losses{}, norms{};
  std::vector<Tensor> weights{};
  std::vector<std::string> complaints{};  // of bytes, wire, rows, or what was thrown; at most some
  Extent gathered = 0;                    // peak bytes
};

/// Collects what ranks found wrong.
class Complaints {
 public:
  template <class... Parts>
  void add(const Parts&... parts) {
    std::lock_guard lock{mutex_};
    if (all_.size() < 8) all_.push_back(concat(parts...));
  }
  std::vector<std::string> take() { return std::move(all_); }

 private:
  std::mutex mutex_;
  std::vector<std::string> all_{};
};

/// The rows of a step that each rank's last unit saw.
struct Consumed {
  std::vector<std::vector<RowId>> by_rank;
};

/// Bytes of the run against the dry session's plan.
inline void check_plan(const Memory& real, const Memory& plan, Rank rank, Complaints& complaints) {
  for (const Tier tier : {Tier::device, Tier::host, Tier::disk})
    for (Extent k = 0; k < categories; ++k) {
      const Tally measured = real.tally(Category(k), tier), planned = plan.tally(Category(k), tier);
      if (measured.peak != planned.peak)
        complaints.add("BYTES: rank ", rank, ": ", category_names[k], " on the ", tier_names[Extent(tier)], " peak at ", measured.peak,
                       " bytes, the plan said ", planned.peak);
    }
}
/// And against the formula.
inline void check_bytes(const Cell& c, const std::vector<Class>& classes, const Memory& real, Rank rank, Complaints& complaints) {
  const Bytes expected = expect_bytes(c, rank, classes);
  const auto compare = [&](Category k, Tier where, Extent bytes) {
    for (const Tier tier : {Tier::device, Tier::host, Tier::disk})
      if (const Extent peak = real.tally(k, tier).peak, formula = tier == where ? bytes : 0; peak != formula)
        complaints.add("BYTES: rank ", rank, ": ", category_names[Extent(k)], " on the ", tier_names[Extent(tier)], " peak at ", peak,
                       " bytes, the formula (with ", expected.padding, " elements of padding) says ", formula);
  };
  compare(Category::weights, c.tier(Kind::weights), expected.weights), compare(Category::gradients, c.tier(Kind::gradients), expected.gradients);
  compare(Category::state, c.tier(Kind::state), expected.state), compare(Category::gathered, Tier::device, expected.gathered);
}
inline void check_wire(const Wire& real, const Wire& expected, const char* whose, Rank rank, Extent step, Complaints& complaints) {
  const std::string more = real.unlike(expected), less = expected.unlike(real);
  if (!more.empty() || !less.empty()) complaints.add("WIRE: rank ", rank, ", step ", step, ": moved ", more, "; ", whose, ": ", less);
}
/// Data ranks (and tensor ranks where tokens are split) saw disjoint rows, and together all.
inline void check_rows(const Cell& c, const Consumed& seen, Extent step, Complaints& complaints) {
  std::vector<RowId> expected, together;
  for (const Sample& s : samples_of(step))
    for (Extent t = 0; t < s.ids.size(); ++t) expected.push_back(s.first_row + t);
  for (Rank r = 0; r < c.ranks(); ++r) {
    const auto& mine = seen.by_rank[r];
    const Place place = place_of(c.degrees, r);
    if (place.stage + 1 == c.degrees.pipe && (c.split() || place.tensor == 0)) together.insert(together.end(), mine.begin(), mine.end());
  }
  std::sort(together.begin(), together.end());
  if (together != expected)
    complaints.add("ROWS: step ", step, ": the ranks consumed ", together.size(), " rows, the batch has ", expected.size(), " or others");
}

/// What learns in a cell.
template <class M = Model>
struct Learner {
  M model;
  AnyOptimizer optimizer;
  bool formulas = true;       // those of formulas.hpp are this model's and its policies'
  bool planned_wire = true;   // a step moves what the plan says; where routes decide, what is dropped doesn't travel
  bool notes_rows = true;     // in `consumed`
  std::vector<Class> (*classes)(const Cell&, Rank) = classes_of;  // what formulas know of the model
  Branches branches{};
};
inline Learner<> learner_of(const Cell& c) { return {make_model(), optimizer_of(c.rule)}; }

/// One rank's part of a run; `seen` is shared by the ranks of one process, null elsewhere.
template <class Recipe, class M>
void train_rank(Session& session, const Cell& c, const Recipe& recipe, Extent count, Run& run, Complaints& complaints, Consumed* seen,
                const Learner<M>& learner) {
  const Mesh mesh{session, c.degrees};
  const std::vector<Class> classes = learner.classes(c, session.rank());
  Weights weights{mesh, learner.model, recipe};
  Trainer trainer{weights, learner.optimizer, TokenLoss{.chunk = 10}, options_of(c)};

  Session dry = Session::dry(session.rank(), session.ranks());
  const Mesh dry_mesh{dry, c.degrees};
  Weights dry_weights{dry_mesh, learner.model, recipe};
  Trainer dry_trainer{dry_weights, learner.optimizer, TokenLoss{.chunk = 10}, options_of(c)};
  dry.traffic.clear();
  dry_trainer.step({});
  const Wire planned = Wire::of(dry.traffic);

  for (Extent step = 0; step < count; ++step) {
    const auto batches = c.feed()(step, mesh.coordinate(Axes::data));
    if (seen) seen->by_rank[session.rank()].clear(), consumed = &seen->by_rank[session.rank()];
    session.traffic.clear();
    const Verdict v = trainer.step(batches);
    consumed = nullptr;
    const Wire moved = Wire::of(session.traffic);
    if (learner.formulas)
      check_wire(moved, expect_wire(c, session.rank(), batches, classes, learner.branches), "the formula", session.rank(), step, complaints);
    if (step % 2 == 0 && c.feed().even() && learner.planned_wire)  // every row is live
      check_wire(moved, planned, "the dry session", session.rank(), step, complaints);
    if (seen && learner.notes_rows) {
      mesh.world().barrier();
      if (session.is_root()) check_rows(c, *seen, step, complaints);
      mesh.world().barrier();
    }
    if (session.is_root()) run.losses.push_back(v.loss), run.norms.push_back(std::sqrt(v.squared_norm));
  }
  if (const BoundedMemory* device = session.memory.budget(); device && device->taken() < dry.memory.peak_bytes())
    complaints.add("BYTES: rank ", session.rank(), ": ", device->taken(), " bytes of the device are taken, the plan said ", dry.memory.peak_bytes());
  check_plan(session.memory, dry.memory, session.rank(), complaints);
  if (learner.formulas) check_bytes(c, classes, session.memory, session.rank(), complaints);
  for (const ParameterRecord& r : weights.records()) {
    auto w = weights.template weight<double>(r.path);
    if (session.is_root()) run.weights.push_back({r.path, std::move(w)});
  }
  if (session.is_root()) run.gathered = session.memory.tally(Category::gathered).peak;
}

/// The bytes that a rank's weights and trainer take of a device. Each pass of a pipeline reserves its own most, which passes under way need
/// not have at once: so they may be more than the plan's peak, and never less.
template <class Recipe, class M>
Extent taken_bytes(Session& session, const Cell& c, const Recipe& recipe, const Learner<M>& learner) {
  Session roomy{session.world(), dsx::Place::cpu, {.device_bytes = 64_MiB}};
  const Mesh mesh{roomy, c.degrees};
  Weights weights{mesh, learner.model, recipe};
  const Trainer trainer{weights, learner.optimizer, TokenLoss{.chunk = 10}, options_of(c)};
  return roomy.memory.budget()->taken();
}

/// On thread ranks, by the recipe given; where something rests off the device, that has not a byte to spare. What is thrown becomes a complaint.
template <class Recipe, class M>
Run train(const Cell& c, const Recipe& recipe, Extent count, const Learner<M>& learner) {
  Run run;
  Complaints complaints;
  Consumed seen{std::vector<std::vector<RowId>>(c.ranks())};
  try {
    launch_threads(c.ranks(),
                   [&](Session& session) {
                     if (c.resident()) return train_rank(session, c, recipe, count, run, complaints, &seen, learner);
                     Session bounded{session.world(), dsx::Place::cpu, {.device_bytes = taken_bytes(session, c, recipe, learner)}};
                     train_rank(bounded, c, recipe, count, run, complaints, &seen, learner);
                   },
                   {.time_limit = std::chrono::seconds{60}});
  } catch (const std::exception& e) {
    complaints.add(e.what());
  }
  run.complaints = complaints.take();
  return run;
}
template <class Recipe>
Run train(const Cell& c, const Recipe& recipe, Extent count = steps) {
  return train(c, recipe, count, learner_of(c));
}
inline Run train(const Cell& c) { return train(c, recipe_of(c)); }

/// Each tensor against its own largest element, but at least 0.1: biases start at 0. A NaN is the largest distance.
inline double distance(std::span<const double> a, std::span<const double> b, double least_scale) {
  double worst = a.size() == b.size() ? 0 : 1e30, scale = least_scale;
  for (Extent i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double off = std::abs(a[i] - b[i]);
    worst = off <= worst ? worst : std::isnan(off) ? 1e30 : off;
    scale = std::max(scale, std::abs(b[i]));
  }
  return worst / scale;
}
inline bool is_qkv_bias(const std::string& path) { return path.ends_with("qkv.bias"); }
/// Losses and weights; `key_biases`: whether those count, whose gradient is nothing but noise.
inline double distance(const Run& a, const Run& b, bool key_biases = true) {
  double worst = distance(a.losses, b.losses, 0.1);
  if (a.weights.size() != b.weights.size() || b.weights.empty()) return 1e30;
  for (Extent i = 0; i < b.weights.size(); ++i) {
    auto x = a.weights[i].values, y = b.weights[i].values;
    if (!key_biases && is_qkv_bias(b.weights[i].path)) std::fill_n(x.begin() + width, width, 0), std::fill_n(y.begin() + width, width, 0);
    worst = std::max(worst, distance(x, y, 0.1));
  }
  return worst;
}
/// Equal to the last bit.
inline bool same(const Run& a, const Run& b) { return !b.losses.empty() && a.losses == b.losses && a.norms == b.norms && a.weights == b.weights; }

inline std::string text_of(const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& line : lines) text += "\n  " + line;
  return text;
}

}  // namespace toy
