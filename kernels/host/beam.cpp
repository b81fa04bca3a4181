// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Beam search.
#include <dsx/infer/beam.hpp>

#include <algorithm>
#include <cmath>

namespace dsx {

double BeamSearch::worth(double sum, Extent tokens) const { return sum / std::pow(double(tokens), penalty_); }

void BeamSearch::finish(Beam beam) {
  beam.score = worth(beam.score, beam.tokens.size());
  const auto worse = std::find_if(finished_.begin(), finished_.end(), [&](const Beam& other) { return other.score < beam.score; });
  finished_.insert(worse, std::move(beam));
  if (finished_.size() > width_) finished_.pop_back();
}

void BeamSearch::advance(std::span<const std::vector<double>> log_probabilities) {
  struct Candidate {
    double score;
    Extent beam;
    int token;
  };
  std::vector<Candidate> all;
  for (Extent b = 0; b < beams_.size(); ++b)
    for (std::size_t t = 0; t < log_probabilities[b].size(); ++t) all.push_back({beams_[b].score + log_probabilities[b][t], b, int(t)});
  const Extent looked_at = std::min(std::max<Extent>(2, 1 + ends_.size()) * width_, all.size());
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.beam != b.beam ? a.beam < b.beam : a.token < b.token;
  };
  std::partial_sort(all.begin(), all.begin() + std::ptrdiff_t(looked_at), all.end(), better);

  std::vector<Beam> next;
  for (Extent rank = 0; rank < looked_at && next.size() < width_; ++rank) {
    const Candidate& c = all[rank];
    Beam beam{beams_[c.beam].tokens, c.score, c.beam};
    beam.tokens.push_back(c.token);
    if (std::find(ends_.begin(), ends_.end(), c.token) != ends_.end()) {
      if (rank < width_) finish(std::move(beam));
    } else {
      next.push_back(std::move(beam));
    }
  }
  const Extent made = beams_.front().tokens.size() + 1;
  done_ = next.empty() || (finished_.size() >= width_ && finished_.back().score >= worth(all.front().score, made));
  beams_ = std::move(next);
}

Beam BeamSearch::best() const {
  BeamSearch last = *this;
  if (!done_)
    for (const Beam& b : beams_)
      if (!b.tokens.empty()) last.finish(b);
  return last.finished_.empty() ? Beam{} : last.finished_.front();
}

}  // namespace dsx
