// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Loops of the elementwise kernels over contiguous elements, compiled once for each instruction set.
///
///     #define DSX_ISA v4
///     #include "elementwise_body.hpp"      // defines ElementwiseBody<T>::v4 and its siblings
#pragma once

#include "elementwise_tables.hpp"

namespace dsx::kernels {

namespace DSX_ISA {

template <class T>
void scale(const T* x, Wide<T> factor, T* y, size_t n) {
  using W = Wide<T>;
  lanes<W>(n, [&](size_t i, auto some) { store(y + i, load<W>(x + i, some) * factor, some); });
}

template <class T>
void add(const T* a, const T* b, T* y, size_t n) {
  using W = Wide<T>;
  lanes<W>(n, [&](size_t i, auto some) { store(y + i, load<W>(a + i, some) + load<W>(b + i, some), some); });
}

/// The normal distribution function and e^(-x^2/2). With z = |x| / sqrt 2, e^(z^2) erfc(z) (1 + 2z) is smooth in (z - 2) / (z + 2):
/// a polynomial of degree 9, fitted at Chebyshev nodes for z up to 10, is right to 3e-8.
DSX_INLINE void normal(Pack<float> x, Pack<float>& distribution, Pack<float>& bell) {
  const Pack<float> z = (x < 0.0F ? -x : x) * 0.70710678F;
  const Pack<float> t = (z - 2.0F) / (z + 2.0F);
  bell = exp(x * x * -0.5F);
  Pack<float> p = spread(-0.0004241225289F);
  p = p * t - 0.001264119488F;
  p = p * t + 0.001327790277F;
  p = p * t + 0.008664255154F;
  p = p * t - 0.008060825113F;
  p = p * t - 0.05421426645F;
  p = p * t + 0.1640549213F;
  p = p * t - 0.1660304204F;
  p = p * t - 0.0927639492F;
  p = p * t + 1.276978377F;
  const Pack<float> tail = 0.5F * bell * p / (1.0F + 2.0F * z);
  distribution = x < 0.0F ? tail : 1.0F - tail;
}
DSX_INLINE void normal(Pack<double> x, Pack<double>& distribution, Pack<double>& bell) {
  for (size_t i = 0; i < count_of<double>; ++i) distribution[i] = 0.5 * erfc(-x[i] * 0.70710678118654752440);
  bell = exp(x * x * -0.5);
}

/// GELU by tanh is x times the logistic function 1 / (1 + e) of 2 sqrt(2 / pi) (x + 0.044715 x^3); this is e.
template <class V>
DSX_INLINE V gelu_exponential(V x) {
  using W = __typeof__(x[0] + x[0]);
  return exp(x * (W(-1.5957691216057307118) - W(1.5957691216057307118 * 0.044715) * x * x));
}

template <class V>
DSX_INLINE V gelu_of(V x, Gelu form) {
  using W = __typeof__(x[0] + x[0]);
  if (form == Gelu::tanh) {
    const V y = x / (W(1) + gelu_exponential(x));
    return x < W(-1e4) ? V{} : y;  // x^3 overflows beyond
  }
  V distribution, bell;
  normal(x, distribution, bell);
  return x * distribution;
}

template <class V>
DSX_INLINE V gelu_slope(V x, Gelu form) {
  using W = __typeof__(x[0] + x[0]);
  if (form == Gelu::tanh) {
    const V e = gelu_exponential(x), s = W(1) / (W(1) + e);
    const V rest = x < W(0) ? W(1) - s : e * s;  // 1 - s without cancellation, and without infinity times 0
    const V y = s + x * s * rest * (W(1.5957691216057307118) + W(3 * 0.044715 * 1.5957691216057307118) * x * x);
    return x < W(-1e4) ? V{} : y;
  }
  V distribution, bell;
  normal(x, distribution, bell);
  return distribution + x * bell * W(0.39894228040143267794);
}

template <class T>
void gelu(const T* x, T* y, size_t n, Gelu form) {
  using W = Wide<T>;
  lanes<W>(n, [&](size_t i, auto some) { store(y + i, gelu_of(load<W>(x + i, some), form), some); });
}

template <class T, class G>
void gelu_pullback(const T* x, const T* dy, G* dx, size_t n, Gelu form, bool accumulate) {
  using W = Wide<T>;
  lanes<W>(n, [&](size_t i, auto some) { put(dx + i, load<W>(dy + i, some) * gelu_slope(load<W>(x + i, some), form), accumulate, some); });
}

template <class T, class G>
void column_sums(const T* dy, G* sums, size_t rows, size_t columns, size_t begin, size_t end, bool accumulate) {
  using W = Wide<T>;
  stripes<W>(begin, end, [&]<size_t Packs>(size_t column, auto some, Count<Packs>) {
    Pack<W> total[Packs]{};
    in_short_chains(rows, [&](size_t first, size_t last) {
      Pack<W> part[Packs]{};
      for (size_t r = first; r < last; ++r)
        for (size_t p = 0; p < Packs; ++p) part[p] += load<W>(dy + r * columns + column + p * count_of<W>, some);
      for (size_t p = 0; p < Packs; ++p) total[p] += part[p];
    });
    for (size_t p = 0; p < Packs; ++p) put(sums + column + p * count_of<W>, total[p], accumulate, some);
  });
}

template <class T, class G>
void dropout(const T* x, G* y, size_t n, std::uint64_t row, std::uint32_t first_column, const Draw& draw, Wide<T> factor, bool accumulate) {
  using W = Wide<T>;
  std::uint32_t words[4 * counters];
  std::uint32_t block = first_column / 4;
  size_t used = first_column % 4;
  for (size_t done = 0; done < n; ++block) {
    draw_words(draw, row, block, 0, words);
    const size_t take = 4 * counters - used < n - done ? 4 * counters - used : n - done;
    lanes<W>(take, [&](size_t i, auto some) {
      Pack<W> kept{};
      if constexpr (sizeof(W) == 4) {
        const Bits drawn = load<std::uint32_t>(words + used + i, some);
        kept = (drawn >> 8) >= draw.threshold ? load<W>(x + done + i, some) * factor : kept;
      } else {
        kept = load<W>(x + done + i, some) * factor;
        for (size_t j = 0; j < count_of<W> && i + j < take; ++j)
          if ((words[used + i + j] >> 8) < draw.threshold) kept[j] = 0;
      }
      put(y + done + i, kept, accumulate, some);
    });
    done += take, used = 0, block += counters - 1;
  }
}

template <class From, class To>
void convert(const From* from, To* to, size_t n, bool accumulate) {
  using W = std::conditional_t<sizeof(From) == 8 || sizeof(To) == 8, double, float>;
  lanes<W>(n, [&](size_t i, auto some) { put_as<W>(to + i, load<W>(from + i, some), accumulate, some); });
}

}  // namespace DSX_ISA

#define DSX_BODY(T) \
  template <>       \
  const ElementwiseBody<T> ElementwiseBody<T>::DSX_ISA{DSX_ISA::scale<T>, DSX_ISA::add<T>, DSX_ISA::gelu<T>};
DSX_BODY(float)
DSX_BODY(double)
DSX_BODY(bf16)
#undef DSX_BODY

#define DSX_BODY(T, G) \
  template <>          \
  const GradBody<T, G> GradBody<T, G>::DSX_ISA{DSX_ISA::gelu_pullback<T, G>, DSX_ISA::column_sums<T, G>, DSX_ISA::dropout<T, G>};
DSX_BODY(float, float)
DSX_BODY(double, double)
DSX_BODY(bf16, bf16)
DSX_BODY(bf16, float)
#undef DSX_BODY

#define DSX_BODY(From, To) \
  template <>              \
  const ConvertBody<From, To> ConvertBody<From, To>::DSX_ISA{DSX_ISA::convert<From, To>};
DSX_BODY(float, float)
DSX_BODY(float, double)
DSX_BODY(float, bf16)
DSX_BODY(double, float)
DSX_BODY(double, double)
DSX_BODY(double, bf16)
DSX_BODY(bf16, float)
DSX_BODY(bf16, double)
DSX_BODY(bf16, bf16)
#undef DSX_BODY

}  // namespace dsx::kernels
