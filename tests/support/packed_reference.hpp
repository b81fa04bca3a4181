// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A run of the toy GPT-2 whose ranks are played one after the other by one rank that knows no packing: what a layout packs is rounded here,
/// by the codecs' reference, where the papers say that it travels or rests.
///
///     const toy::Run run = toy::packed_reference(cell, 6);    // in double; tensor and pipe degrees are 1
#pragma once

#include "runs.hpp"

namespace toy {

class PackedReference {
 public:
  PackedReference(const Cell& c, Extent count)
      : cell_{c},
        cut_{cuts_of(c.sharding)},
        mesh_{session_, {}},
        weights_{mesh_, make_model(), AnyRecipe{AnyPrecision{GivenElements{c.elements}}}},
        trainer_{weights_, Sgd{}, TokenLoss{.chunk = 10}, {.rows = c.feed().rows(), .seed = options_of(c).seed}},
        dry_(Session::dry(0, c.ranks())),
        dry_mesh_{dry_, c.degrees},
        laid_out_{dry_mesh_, make_model(), recipe_of(c)} {
    lay_out();
    for (Extent step = 0; step < count; ++step) play(step);
    for (const ParameterRecord& r : weights_.records()) run_.weights.push_back({r.path, master_of(r.path)});
  }
  const Run& run() const { return run_; }

 private:
  using Flat = std::vector<double>;
  /// A bundle of the layout that is played: on one tensor rank all data ranks have the same.
  struct Lot {
    Bundle* bundle;
    Flat master{};
    std::vector<Flat> states{};
    std::map<std::string, std::vector<Flat>> owed{};  // by hop, then by rank
    Extent size() const { return bundle->size; }
  };

  Extent ranks() const { return cell_.degrees.data; }
  Extent over(Axes axes) const { return ranks_over(cell_.degrees, axes); }
  /// A data rank's place along an axis, near ranks first.
  Extent coordinate(Axes axes, Extent rank) const {
    const Extent far = cell_.degrees.data / cell_.degrees.inner;
    return axes == Axes::inner ? rank / far : axes == Axes::outer ? rank % far : axes == Axes::data ? rank : 0;
  }
  bool together(Axes axes, Extent a, Extent b) const { return coordinate(Axes::data - axes, a) == coordinate(Axes::data - axes, b); }

  void lay_out() {
    for (Bundle& b : laid_out_.bundles().all()) {
      Lot& lot = lots_.emplace_back(Lot{&b, Flat(b.size)});
      const bool two = cell_.rule == Rule::adamw;
      lot.states.assign(two ? 2 : 1, Flat(b.size));
      for (const Segment& s : b.segments) {
        const auto values = weights_.weight<double>(s.path);
        std::copy(values.begin(), values.end(), lot.master.begin() + std::ptrdiff_t(s.offset));
      }
    }
  }

  /// What comes back of a range that one rank packs alone; with `owed`, what that lost is owed.
  static void round(const Codec& codec, std::span<double> values, std::span<double> owed = {}) {
    std::vector<std::uint8_t> packed(codec.packed_bytes(values.size()));
    reference::quantize<double>(codec, values.data(), owed.empty() ? nullptr : owed.data(), values.size(), packed.data());
    for (Extent i = 0; i < values.size(); ++i) values[i] = reference::element<double>(codec, packed.data(), values.size(), i);
  }
  static std::span<double> part(Flat& all, Extent parts, Extent i) {
    const Range r = share({0, all.size()}, parts, i);
    return {all.data() + r.begin, r.size()};
  }

  /// The weights that all ranks compute with.
  Flat gathered(const Lot& lot) const {
    Flat all = lot.master;
    const Extent parts = std::max(over(cut_.forward), over(cut_.state - cut_.forward));
    if (cell_.codecs.gather && parts > 1)
      for (Extent r = 0; r < parts; ++r) round(*cell_.codecs.gather, part(all, parts, r));
    return all;
  }

  /// Each rank's term becomes its part of the sum over the ranks along some axes.
  std::vector<Flat> scattered(Lot& lot, const char* name, Axes axes, std::vector<Flat> terms) {
    for (const Hop& hop : hops_of(cell_.degrees, axes, terms.front().size())) {
      auto& owed = lot.owed[concat(name, to_text(hop.axes))];
      if (cell_.codecs.feedback && owed.empty()) owed.assign(ranks(), Flat(hop.elements));
      std::vector<Flat> sums(ranks(), Flat(hop.elements / hop.ranks));
      for (Extent from = 0; from < ranks(); ++from)
        for (Extent p = 0; p < hop.ranks; ++p)
          if (cell_.codecs.reduction)
            round(*cell_.codecs.reduction, part(terms[from], hop.ranks, p), owed.empty() ? std::span<double>{} : part(owed[from], hop.ranks, p));
      for (Extent to = 0; to < ranks(); ++to)
        for (Extent from = 0; from < ranks(); ++from)
          if (together(hop.axes, from, to)) {
            const auto term = part(terms[from], hop.ranks, coordinate(hop.axes, to));
            for (Extent i = 0; i < term.size(); ++i) sums[to][i] += term[i];
          }
      terms = std::move(sums);
    }
    return terms;
  }
  /// Each rank's term becomes the whole sum.
  std::vector<Flat> summed(Lot& lot, Axes axes, std::vector<Flat> terms) {
    if (over(axes) == 1) return terms;
    std::vector<Flat> parts = scattered(lot, "whole", axes, terms);
    auto& owed = lot.owed["to all"];
    if (cell_.codecs.feedback && owed.empty()) owed.assign(ranks(), Flat(parts.front().size()));
    for (Extent r = 0; r < ranks(); ++r)
      if (cell_.codecs.reduction) round(*cell_.codecs.reduction, parts[r], owed.empty() ? std::span<double>{} : std::span<double>{owed[r]});
    for (Extent to = 0; to < ranks(); ++to)
      for (Extent from = 0; from < ranks(); ++from)
        if (together(axes, from, to)) std::copy(parts[from].begin(), parts[from].end(), part(terms[to], over(axes), coordinate(axes, from)).begin());
    return terms;
  }

  /// The gradients of one rank's micro-batch, in lots; they are terms of the gradient of the mean over all targets.
  std::vector<Flat> gradients_of(const MicroBatch& batch, Extent step, double all_targets, double& loss) {
    std::vector<Flat> all;
    for (const Lot& lot : lots_) all.emplace_back(lot.size());
    const double targets = TokenLoss{}.counts(batch.view(cell_.feed().rows())).targets;
    if (targets == 0) return all;
    trainer_.resume_at(step);
    trainer_.accumulate({&batch, 1});
    loss += trainer_.verdict().loss * targets / all_targets;
    for (Extent l = 0; l < lots_.size(); ++l)
      for (const Segment& s : lots_[l].bundle->segments) {
        const auto g = weights_.gradient<double>(s.path);
        for (Extent i = 0; i < g.size(); ++i) all[l][s.offset + i] = g[i] * targets / all_targets;
      }
    return all;
  }

  void play(Extent step) {
    for (const Lot& lot : lots_) {
      const Flat values = gathered(lot);
      for (const Segment& s : lot.bundle->segments) weights_.assign(s.path, std::span<const double>{values.data() + s.offset, s.part.local.size()});
    }
    std::vector<std::vector<MicroBatch>> batches;
    double targets = 0, loss = 0;
    for (Extent r = 0; r < ranks(); ++r) {
      batches.push_back(cell_.feed()(step, r));
      for (const MicroBatch& b : batches.back()) targets += TokenLoss{}.counts(b.view(cell_.feed().rows())).targets;
    }
    std::vector<std::vector<Flat>> sums(lots_.size());  // by lot, then by rank: the parts of one micro-batch after the other
    for (Extent m = 0; m < cell_.micro_batches; ++m) {
      std::vector<std::vector<Flat>> terms(lots_.size());
      for (Extent r = 0; r < ranks(); ++r) {
        auto mine = gradients_of(batches[r][m], step, targets, loss);
        for (Extent l = 0; l < lots_.size(); ++l) terms[l].push_back(std::move(mine[l]));
      }
      for (Extent l = 0; l < lots_.size(); ++l) {
        const auto parts = scattered(lots_[l], "each", cut_.gradients, std::move(terms[l]));
        if (sums[l].empty()) sums[l].assign(ranks(), Flat(parts.front().size()));
        for (Extent r = 0; r < ranks(); ++r)
          for (Extent i = 0; i < parts[r].size(); ++i) sums[l][r][i] += parts[r][i];
      }
    }
    double squares = 0;
    std::vector<Flat> whole;
    for (Extent l = 0; l < lots_.size(); ++l) {
      auto parts = scattered(lots_[l], "last", cut_.state - cut_.gradients, std::move(sums[l]));
      parts = summed(lots_[l], Axes::data - cut_.state, std::move(parts));
      Flat& g = whole.emplace_back(lots_[l].size());
      for (Extent r = 0; r < ranks(); ++r) std::copy(parts[r].begin(), parts[r].end(), part(g, over(cut_.state), coordinate(cut_.state, r)).begin());
      for (const double x : g) squares += x * x;
    }
    run_.losses.push_back(loss), run_.norms.push_back(std::sqrt(squares));
    const double scale = std::min(1.0, clip / (std::sqrt(squares) + 1e-6));
    for (Extent l = 0; l < lots_.size(); ++l) update(lots_[l], whole[l], scale, double(step + 1));
  }

  void update(Lot& lot, const Flat& gradient, double scale, double step) {
    const bool decays = lot.bundle->kind.role != Role::vector;
    for (Extent i = 0; i < lot.size(); ++i) {
      const double g = gradient[i] * scale;
      double &w = lot.master[i], &first = lot.states[0][i];
      if (cell_.rule == Rule::sgd) {
        first = 0.9 * first + g, w -= 0.1 * first;
        continue;
      }
      const AdamW rule{.rate = 3e-3, .epsilon = 1e-4};
      double& second = lot.states[1][i];
      first = rule.beta_1 * first + (1 - rule.beta_1) * g, second = rule.beta_2 * second + (1 - rule.beta_2) * g * g;
      const double mean = first / (1 - std::pow(rule.beta_1, step)), variance = second / (1 - std::pow(rule.beta_2, step));
      w -= rule.rate * ((decays ? rule.decay * w : 0) + mean / (std::sqrt(variance) + rule.epsilon));
    }
    if (!cell_.codecs.state) return;
    const Codec& codec = *cell_.codecs.state;
    const Extent parts = over(cut_.state);
    for (Flat& state : lot.states) std::fill(state.begin() + std::ptrdiff_t(lot.bundle->segments.back().range().end), state.end(), 0);
    for (Extent state = 0; state < lot.states.size(); ++state)
      for (Extent r = 0; r < parts; ++r) {
        const auto mine = part(lot.states[state], parts, r);
        if (state == 0) {
          round(codec, mine);
          continue;
        }
        // Variances rest as roots, none below what rounds to a step.
        for (Extent begin = 0; begin < mine.size(); begin += codec.block) {
          const auto block = mine.subspan(begin, std::min(codec.block, mine.size() - begin));
          for (double& x : block) x = std::sqrt(x);
          const double least = *std::max_element(block.begin(), block.end()) / double(reference::top_code(codec)) * 0.51;
          for (double& x : block) x = std::max(x, least);
        }
        round(codec, mine);
        for (double& x : mine) x *= x;
      }
  }
  std::vector<double> master_of(const std::string& path) const {
    for (const Lot& lot : lots_)
      for (const Segment& s : lot.bundle->segments)
        if (s.path == path)
          return {lot.master.begin() + std::ptrdiff_t(s.offset), lot.master.begin() + std::ptrdiff_t(s.offset + s.part.local.size())};
    return {};
  }

  Cell cell_;
  CutOver cut_;
  Session session_{self_transport()};
  Mesh mesh_;
  Weights<Model, AnyRecipe> weights_;
  Trainer<Weights<Model, AnyRecipe>, Sgd, TokenLoss> trainer_;
  Session dry_;
  Mesh dry_mesh_;
  Weights<Model, AnyRecipe> laid_out_;
  std::vector<Lot> lots_{};
  Run run_{};
};

inline Run packed_reference(const Cell& c, Extent count) { return PackedReference{c, count}.run(); }

}  // namespace toy
