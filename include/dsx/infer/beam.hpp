// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Beam search over one sequence: which beams go on with which token. It knows no model.
///
///     BeamSearch search{3, 1.0, {end}};
///     while (!search.done() && made < wanted) {
///       search.advance(log_probabilities);               // a row for each of search.beams()
///       for (const Beam& b : search.beams()) ...          // b.parent: where its past lies among the beams before
///     }
///     search.best().tokens
#pragma once

#include <dsx/core/shape.hpp>

#include <span>
#include <utility>
#include <vector>

namespace dsx {

struct Beam {
  std::vector<int> tokens = {};  // new ones
  double score = 0;              // sum of log probabilities; of a finished one, over (its new tokens)^penalty
  Extent parent = 0;             // among the beams before
};

/// As Hugging Face's: of 2 x beams candidates (with several ends (1 + ends) x beams) those that end become hypotheses if they are among the
/// first `beams`, the others go on; done when no beam's score so far can beat the worst of `beams` hypotheses.
class BeamSearch {
 public:
  BeamSearch(Extent beams, double length_penalty, std::vector<int> ends)
      : width_{beams}, penalty_{length_penalty}, ends_{std::move(ends)}, beams_(1) {}

  /// One to begin with, then as many as asked for, the best first.
  const std::vector<Beam>& beams() const { return beams_; }
  bool done() const { return done_; }
  void advance(std::span<const std::vector<double>> log_probabilities);
  /// Of the finished ones and, unless done, of those under way.
  Beam best() const;

 private:
  double worth(double sum, Extent tokens) const;
  void finish(Beam beam);

  Extent width_;
  double penalty_;
  std::vector<int> ends_;
  std::vector<Beam> beams_, finished_{};
  bool done_ = false;
};

}  // namespace dsx
