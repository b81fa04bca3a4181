// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A sum of doubles without rounding, so that no order of its terms, and no cut of them into parts, changes a bit of it.
///
///     ExactSum sum;
///     sum.add(0.1), sum.add(1e300), sum.add(-1e300);
///     sum.value();                                   // 0.1: rounded once, to the nearest double
///
/// A double is an integer times a power of two: it is cut at multiples of 32 bits and added to one or more of 68 limbs (Kulisch 1971; in
/// this form Neal 2015). Limbs are whole numbers below 2^32, which a reduction over ranks adds up in double without rounding.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>

namespace dsx {

class ExactSum {
 public:
  static constexpr int limbs = 68;           // of 32 bits each, from the lowest bit of the smallest double up
  static constexpr int numbers = limbs + 1;  // that stand for a sum between ranks

  void add(double x) {
    const auto bits = std::bit_cast<std::uint64_t>(x);
    const int exponent = int(bits >> 52) & 0x7FF;
    if (exponent == 0x7FF) return void(special_ += x);
    const std::uint64_t fraction = (bits & ((std::uint64_t(1) << 52) - 1)) | (exponent ? std::uint64_t(1) << 52 : 0);
    add(fraction, exponent ? exponent - 1 : 0, std::int64_t(bits) >> 63);
  }
  /// units x 2^(place - 1074), or its negative where `sign` is -1; `place` is at most 2077.
  void add(std::uint64_t units, int place, std::int64_t sign = 0) {
    const int shift = place & 31;
    // units << shift, in three parts.
    const std::uint64_t low = (units << shift) & low_32, rest = units >> (32 - shift), middle = rest & low_32, high = rest >> 32;
    std::int64_t* const to = &limbs_[std::size_t(place >> 5)];
    to[0] += (std::int64_t(low) ^ sign) - sign, to[1] += (std::int64_t(middle) ^ sign) - sign, to[2] += (std::int64_t(high) ^ sign) - sign;
    if (++since_carried_ == most_uncarried) carry();
  }
  void add(ExactSum other) {
    other.carry(), carry();
    for (std::size_t i = 0; i < limbs; ++i) limbs_[i] += other.limbs_[i];
    special_ += other.special_, since_carried_ = 1;
  }

  /// As numbers whose sums over ranks, taken number by number in any order, stand for the sum of all; below 2^20 ranks.
  void to(std::span<double, numbers> all) {
    carry();
    for (std::size_t i = 0; i < limbs; ++i) all[i] = double(limbs_[i]);
    all[limbs] = special_;
  }
  static ExactSum from(std::span<const double, numbers> all) {
    ExactSum sum;
    for (std::size_t i = 0; i < limbs; ++i) sum.limbs_[i] = std::int64_t(all[i]);
    sum.special_ = all[limbs];
    sum.carry();
    return sum;
  }

  /// The nearest double, of two the even one; what infinities and NaNs add up to if there were any.
  double value() const {
    if (special_ != 0 || special_ != special_) return special_;
    ExactSum s = *this;
    s.carry();
    const bool negative = s.limbs_[limbs - 1] < 0;
    if (negative) {
      for (std::int64_t& l : s.limbs_) l = -l;
      s.carry();
    }
    int top = limbs - 1;
    while (top >= 0 && s.limbs_[std::size_t(top)] == 0) --top;
    if (top < 0) return 0;
    const auto limb = [&](int i) { return i >= 0 ? std::uint64_t(s.limbs_[std::size_t(i)]) : 0; };
    // The 64 highest bits, the lowest of them set if anything follows: more than a double holds, so the conversion rounds as the sum would.
    const int zeros = std::countl_zero(std::uint32_t(limb(top)));
    const std::uint64_t third = limb(top - 2) << zeros;
    std::uint64_t highest = ((limb(top) << 32 | limb(top - 1)) << zeros) | third >> 32;
    bool more = (third & low_32) != 0;
    for (int i = top - 3; i >= 0 && !more; --i) more = limb(i) != 0;
    const double rounded = std::ldexp(double(highest | std::uint64_t(more)), 32 * (top - 1) - zeros - 1074);
    return negative ? -rounded : rounded;
  }

 private:
  static constexpr std::uint64_t low_32 = 0xFFFFFFFF;
  static constexpr std::uint32_t most_uncarried = std::uint32_t(1) << 30;

  /// All limbs but the last become 0 to 2^32 - 1; that one has the sign.
  void carry() {
    since_carried_ = 0;
    for (std::size_t i = 0; i + 1 < limbs; ++i) {
      limbs_[i + 1] += limbs_[i] >> 32;
      limbs_[i] &= std::int64_t(low_32);
    }
  }

  std::array<std::int64_t, limbs> limbs_{};
  double special_ = 0;
  std::uint32_t since_carried_ = 0;
};

}  // namespace dsx
