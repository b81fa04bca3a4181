// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// One row of rotary positions, compiled once for each instruction set.
///
///     pick<RopeBody<T, G>>().row(from, cosines, sines, to, {.heads = 16, .half = 32, .rest = 256}, accumulate);
#pragma once

#include "simd.hpp"

namespace dsx::kernels {

/// A row: heads of 2 half channels that turn, then `rest` channels that don't.
struct RopeRow {
  std::size_t heads, half, rest;
};

template <class T, class G>
struct RopeBody {
  void (*row)(const T* from, const Wide<T>* cosines, const Wide<T>* sines, G* to, const RopeRow& row, bool accumulate);
  static const RopeBody v3, v4;
};

namespace DSX_ISA {

template <class T, class G>
void rope(const T* from, const Wide<T>* cosines, const Wide<T>* sines, G* to, const RopeRow& row, bool accumulate) {
  using W = Wide<T>;
  for (size_t head = 0; head < row.heads; ++head, from += 2 * row.half, to += 2 * row.half)
    lanes<W>(row.half, [&](size_t i, auto some) {
      const Pack<W> low = load<W>(from + i, some), high = load<W>(from + row.half + i, some);
      const Pack<W> c = load<W>(cosines + i, some), s = load<W>(sines + i, some);
      put(to + i, low * c - high * s, accumulate, some);
      put(to + row.half + i, high * c + low * s, accumulate, some);
    });
  lanes<W>(row.rest, [&](size_t i, auto some) { put(to + i, load<W>(from + i, some), accumulate, some); });
}

}  // namespace DSX_ISA

#define DSX_BODY(T, G)                     \
  template <>                              \
  const RopeBody<T, G> RopeBody<T, G>::v3; \
  template <>                              \
  const RopeBody<T, G> RopeBody<T, G>::v4; \
  template <>                              \
  const RopeBody<T, G> RopeBody<T, G>::DSX_ISA{DSX_ISA::rope<T, G>};
DSX_BODY(float, float)
DSX_BODY(double, double)
DSX_BODY(bf16, bf16)
DSX_BODY(bf16, float)
#undef DSX_BODY

}  // namespace dsx::kernels
