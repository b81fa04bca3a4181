// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Extents, ranges, shapes, and the one rule by which ranks share a range.
///
///     share({0, 10}, 4, 1)   // {3, 6}: where the parts don't divide, the first are one longer
///     64_MiB
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace dsx {

using Extent = std::size_t;
using Rank = std::size_t;

struct Range {
  Extent begin = 0, end = 0;
  constexpr Extent size() const { return end - begin; }
  constexpr bool contains(Extent i) const { return begin <= i && i < end; }
  friend constexpr bool operator==(const Range&, const Range&) = default;
};

/// Part `index` of `parts`; where they do not divide, the first parts are one longer.
constexpr Range share(Range whole, Extent parts, Extent index) {
  const Extent each = whole.size() / parts, longer = whole.size() % parts;
  const Extent begin = whole.begin + index * each + std::min(index, longer);
  return {begin, begin + each + (index < longer ? 1 : 0)};
}

constexpr Range overlap(Range a, Range b) {
  const Extent begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

constexpr Extent round_up(Extent n, Extent multiple) { return (n + multiple - 1) / multiple * multiple; }

struct Shape {
  Extent rows = 0, columns = 0;
  constexpr Extent size() const { return rows * columns; }
  friend constexpr bool operator==(const Shape&, const Shape&) = default;
};

inline namespace literals {
constexpr Extent operator""_KiB(unsigned long long n) { return Extent(n) << 10; }
constexpr Extent operator""_MiB(unsigned long long n) { return Extent(n) << 20; }
constexpr Extent operator""_GiB(unsigned long long n) { return Extent(n) << 30; }
}  // namespace literals

}  // namespace dsx
