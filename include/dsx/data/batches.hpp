// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Which tokens are trained on when: a window is a function of the seed and a sequence's number, so no layout of ranks changes it.
///
///     const dsx::TrainingWindows windows{tokens.size(), 64, 7};
///     for (dsx::Extent row : my_rows) tokens.copy(windows.at(step * rows + row).range(), buffer);
///
/// Numbering goes on from step to step; each run of count() numbers, an epoch, draws every window once, in an order of its own.
/// Ranks that take different rows of an epoch get different windows; who knows the step knows where to go on.
#pragma once

#include <dsx/core/error.hpp>
#include <dsx/core/random.hpp>
#include <dsx/core/shape.hpp>

#include <bit>

namespace dsx {

/// A context and the token after it: inputs are all but the last, targets all but the first.
struct Window {
  Extent begin = 0, length = 0;

  constexpr Range range() const { return {begin, begin + length}; }
  friend constexpr bool operator==(const Window&, const Window&) = default;
};

/// An order of 0 .. size - 1 that costs no memory: a Feistel network over the next power of 4, walked until it falls into the range.
class Permutation {
 public:
  constexpr Permutation(Extent size, std::uint64_t seed, std::uint64_t stream)
      : size_{size}, seed_{seed}, stream_{stream}, half_{unsigned(size > 1 ? (std::bit_width(size - 1) + 1) / 2 : 0)} {}

  constexpr Extent operator()(Extent i) const {
    do i = shuffle(i);
    while (i >= size_);
    return i;
  }

 private:
  constexpr Extent shuffle(Extent i) const {
    const std::uint64_t mask = (std::uint64_t(1) << half_) - 1;
    std::uint64_t left = i >> half_, right = i & mask;
    for (std::uint32_t round = 0; round < 6; ++round) {
      const auto words = philox({std::uint32_t(right), round, std::uint32_t(stream_), std::uint32_t(stream_ >> 32)},
                                {std::uint32_t(seed_), std::uint32_t(seed_ >> 32)});
      const std::uint64_t next = left ^ (words[0] & mask);
      left = right, right = next;
    }
    return Extent(left << half_ | right);
  }

  Extent size_;
  std::uint64_t seed_, stream_;
  unsigned half_;
};

/// Windows one after the other that share their borders: each token but the first is predicted once. What is left over is no window.
class ValidationWindows {
 public:
  ValidationWindows(Extent tokens, Extent context) : context_{context} {
    if (context == 0) fail<651>("a context of 0 tokens predicts nothing");
    if (tokens < context + 1)
      fail<651>(tokens, " tokens are fewer than one window: a context of ", context, " and the token after it take ", context + 1);
    count_ = (tokens - 1) / context;
  }

  Extent count() const { return count_; }
  Window at(Extent i) const {
    if (i >= count_) fail<651>("window ", i, " of ", count_);
    return {i * context_, context_ + 1};
  }

 private:
  Extent context_, count_ = 0;
};

inline ValidationWindows validation_windows(Extent tokens, Extent context) { return {tokens, context}; }

/// The same windows without end, shuffled anew each epoch and shifted by what is left over, so that their borders move.
class TrainingWindows {
 public:
  TrainingWindows(Extent tokens, Extent context, std::uint64_t seed)
      : context_{context}, seed_{seed}, count_{ValidationWindows{tokens, context}.count()}, spare_{tokens - 1 - count_ * context} {}

  /// Windows of an epoch.
  Extent count() const { return count_; }

  /// The window of a sequence: step * rows of a step + row, counted over all ranks.
  Window at(Extent sequence) const {
    const std::uint64_t epoch = sequence / count_;
    const Extent window = Permutation{count_, seed_, epoch}(sequence % count_);
    // Counter 6 is the first that no round of the permutation uses.
    const auto words = philox({0, 6, std::uint32_t(epoch), std::uint32_t(epoch >> 32)}, {std::uint32_t(seed_), std::uint32_t(seed_ >> 32)});
    return {words[0] % (spare_ + 1) + window * context_, context_ + 1};
  }

 private:
  Extent context_;
  std::uint64_t seed_;
  Extent count_, spare_;
};

}  // namespace dsx
