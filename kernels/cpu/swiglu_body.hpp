// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Loops of the gated linear unit, compiled once for each instruction set.
///
///     pick<SwigluBody<T>>().forward(gate, up, y, n);
///     pick<SwigluGrad<T, G>>().pullback(gate, up, dy, dgate, dup, n, accumulate);
#pragma once

#include "simd.hpp"

namespace dsx::kernels {

template <class T>
struct SwigluBody {
  void (*forward)(const T* gate, const T* up, T* y, std::size_t n);
  static const SwigluBody v3, v4;
};

template <class T, class G>
struct SwigluGrad {
  void (*pullback)(const T* gate, const T* up, const T* dy, G* dgate, G* dup, std::size_t n, bool accumulate);
  static const SwigluGrad v3, v4;
};

namespace DSX_ISA {

template <class T>
void swiglu(const T* gate, const T* up, T* y, size_t n) {
  using W = Wide<T>;
  lanes<W>(n, [&](size_t i, auto some) {
    const Pack<W> g = load<W>(gate + i, some);
    store(y + i, g / (exp(-g) + W(1)) * load<W>(up + i, some), some);
  });
}

template <class T, class G>
void swiglu_pullback(const T* gate, const T* up, const T* dy, G* dgate, G* dup, size_t n, bool accumulate) {
  using W = Wide<T>;
  lanes<W>(n, [&](size_t i, auto some) {
    const Pack<W> g = load<W>(gate + i, some), slope = load<W>(dy + i, some);
    const Pack<W> sigmoid = W(1) / (exp(-g) + W(1)), silu = g * sigmoid;
    const Pack<W> silu_slope = sigmoid + silu * (W(1) - sigmoid);
    put(dgate + i, slope * load<W>(up + i, some) * silu_slope, accumulate, some);
    put(dup + i, slope * silu, accumulate, some);
  });
}

}  // namespace DSX_ISA

#define DSX_BODY(T)                      \
  template <>                            \
  const SwigluBody<T> SwigluBody<T>::v3; \
  template <>                            \
  const SwigluBody<T> SwigluBody<T>::v4; \
  template <>                            \
  const SwigluBody<T> SwigluBody<T>::DSX_ISA{DSX_ISA::swiglu<T>};
DSX_BODY(float)
DSX_BODY(double)
DSX_BODY(bf16)
#undef DSX_BODY

#define DSX_BODY(T, G)                         \
  template <>                                  \
  const SwigluGrad<T, G> SwigluGrad<T, G>::v3; \
  template <>                                  \
  const SwigluGrad<T, G> SwigluGrad<T, G>::v4; \
  template <>                                  \
  const SwigluGrad<T, G> SwigluGrad<T, G>::DSX_ISA{DSX_ISA::swiglu_pullback<T, G>};
DSX_BODY(float, float)
DSX_BODY(double, double)
DSX_BODY(bf16, bf16)
DSX_BODY(bf16, float)
#undef DSX_BODY

}  // namespace dsx::kernels
