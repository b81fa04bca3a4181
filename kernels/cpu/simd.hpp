// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Vectors of one instruction set: packs as wide as a register, loads that widen and stores that narrow, exp.
///
///     lanes<float>(n, [&](std::size_t i, auto some) { store(y + i, exp(load<float>(x + i, some)), some); });
///
/// Everything stands in namespace dsx::kernels::DSX_ISA and calls nothing from outside it but the C library, so that a
/// program compiled for two instruction sets never runs a function of the wrong one.
#pragma once

#include <dsx/core/element.hpp>

#include <math.h>
#include <string.h>
#include <cstddef>
#include <cstdint>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#ifndef DSX_ISA
#define DSX_ISA v3
#endif

namespace dsx::kernels::DSX_ISA {

using std::size_t;

#if defined(__AVX512F__)
inline constexpr size_t register_bytes = 64, registers = 32;
#elif defined(__AVX__)
inline constexpr size_t register_bytes = 32, registers = 16;
#else
inline constexpr size_t register_bytes = 16, registers = 16;
#endif

template <class W>
struct PackOf {};
template <>
struct PackOf<float> {
  typedef float Type __attribute__((vector_size(register_bytes)));
};
template <>
struct PackOf<double> {
  typedef double Type __attribute__((vector_size(register_bytes)));
};
template <>
struct PackOf<std::int32_t> {
  typedef std::int32_t Type __attribute__((vector_size(register_bytes)));
};
template <>
struct PackOf<std::uint32_t> {
  typedef std::uint32_t Type __attribute__((vector_size(register_bytes)));
};
template <>
struct PackOf<std::uint64_t> {
  typedef std::uint64_t Type __attribute__((vector_size(register_bytes)));
};
template <class W>
using Pack = typename PackOf<W>::Type;
template <class W>
inline constexpr size_t count_of = register_bytes / sizeof(W);

typedef std::uint16_t Halves __attribute__((vector_size(register_bytes / 2)));  // as many as a pack has floats
typedef float FewFloats __attribute__((vector_size(register_bytes / 2)));       // as many as a pack has doubles
using Ints = Pack<std::int32_t>;
using Bits = Pack<std::uint32_t>;

#define DSX_INLINE inline __attribute__((always_inline))

/// Which lanes of a pack are meant: all, or the first n.
struct Whole {};
struct Part {
  size_t n;
};

/// f(i, Whole) for each full pack of [0, n), then f(i, Part) for what is left.
template <class W, class F>
DSX_INLINE void lanes(size_t n, const F& f) {
  size_t i = 0;
  for (; i + count_of<W> <= n; i += count_of<W>) f(i, Whole{});
  if (i < n) f(i, Part{n - i});
}

template <size_t N>
struct Count {};

/// f(column, Whole, Count<4>) for stripes of four packs, then single packs, then what is left: sums over rows read whole cache lines in a row.
template <class W, class F>
DSX_INLINE void stripes(size_t begin, size_t end, const F& f) {
  size_t i = begin;
  for (; i + 4 * count_of<W> <= end; i += 4 * count_of<W>) f(i, Whole{}, Count<4>{});
  for (; i + count_of<W> <= end; i += count_of<W>) f(i, Whole{}, Count<1>{});
  if (i < end) f(i, Part{end - i}, Count<1>{});
}

/// f(first, last) over runs of 64 rows: what each sums is added to a total, for short chains of additions keep the rounding small.
template <class F>
DSX_INLINE void in_short_chains(size_t rows, const F& f) {
  for (size_t first = 0; first < rows; first += 64) f(first, first + 64 < rows ? first + 64 : rows);
}

template <class To, class From>
DSX_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

template <class W>
DSX_INLINE Pack<W> spread(W x) {
  return x - Pack<W>{};
}

DSX_INLINE Pack<float> widen(Halves h) {
#if defined(__AVX512F__)
  const Bits b = Bits(_mm512_maskz_cvtepu16_epi32(0xFFFF, __m256i(h)));
#elif defined(__AVX2__)
  const Bits b = Bits(_mm256_cvtepu16_epi32(__m128i(h)));
#else
  const Bits b = __builtin_convertvector(h, Bits);
#endif
  return bits_as<Pack<float>>(b << 16);
}
DSX_INLINE Halves narrow(Pack<float> x) {
  const Bits b = bits_as<Bits>(x), high = b >> 16;
  const Bits rounded = (b + 0x7FFFU + (high & 1U)) >> 16;
  const Bits result = x != x ? high | 0x40U : rounded;
#if defined(__AVX512F__)
  return Halves(_mm512_maskz_cvtepi32_epi16(0xFFFF, __m512i(result)));
#elif defined(__AVX2__)
  return Halves(_mm_packus_epi32(_mm256_castsi256_si128(__m256i(result)), _mm256_extracti128_si256(__m256i(result), 1)));
#else
  return __builtin_convertvector(result, Halves);
#endif
}

/// A pack of W from elements of any type that kernels compute with.
template <class W>
DSX_INLINE Pack<W> load(const W* p, Whole) {
  Pack<W> v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class W>
DSX_INLINE Pack<W> load(const W* p, Part some) {
  Pack<W> v{};
  memcpy(&v, p, some.n * sizeof(W));
  return v;
}
template <class W, class Some>
  requires(sizeof(W) == 4)
DSX_INLINE Pack<W> load(const bf16* p, Some some) {
  Halves h{};
  if constexpr (requires { some.n; })
    memcpy(&h, p, some.n * sizeof(bf16));
  else
    memcpy(&h, p, sizeof h);
  return widen(h);
}
template <class W, class Some>
  requires(sizeof(W) == 8)
DSX_INLINE Pack<W> load(const float* p, Some some) {
  FewFloats f{};
  if constexpr (requires { some.n; })
    memcpy(&f, p, some.n * sizeof(float));
  else
    memcpy(&f, p, sizeof f);
  return __builtin_convertvector(f, Pack<W>);
}
template <class W, class Some>
  requires(sizeof(W) == 8)
DSX_INLINE Pack<W> load(const bf16* p, Some some) {
  Pack<W> v{};
  size_t n = count_of<W>;
  if constexpr (requires { some.n; }) n = some.n;
  for (size_t i = 0; i < n; ++i) v[i] = double(bits_as<float>(std::uint32_t(p[i].bits) << 16));
  return v;
}

template <class W>
DSX_INLINE void store(W* p, Pack<W> v, Whole) {
  memcpy(p, &v, sizeof v);
}
template <class W>
DSX_INLINE void store(W* p, Pack<W> v, Part some) {
  memcpy(p, &v, some.n * sizeof(W));
}
template <class Some>
DSX_INLINE void store(bf16* p, Pack<float> v, Some some) {
  const Halves h = narrow(v);
  if constexpr (requires { some.n; })
    memcpy(static_cast<void*>(p), &h, some.n * sizeof(bf16));
  else
    memcpy(static_cast<void*>(p), &h, sizeof h);
}
template <class Some>
DSX_INLINE void store(float* p, Pack<double> v, Some some) {
  const FewFloats f = __builtin_convertvector(v, FewFloats);
  if constexpr (requires { some.n; })
    memcpy(p, &f, some.n * sizeof(float));
  else
    memcpy(p, &f, sizeof f);
}
template <class Some>
DSX_INLINE void store(bf16* p, Pack<double> v, Some some) {
  size_t n = count_of<double>;
  if constexpr (requires { some.n; }) n = some.n;
  for (size_t i = 0; i < n; ++i) {
    const float x = float(v[i]);
    const auto b = bits_as<std::uint32_t>(x);
    p[i].bits = std::uint16_t(x != x ? (b >> 16) | 0x40U : (b + 0x7FFFU + ((b >> 16) & 1U)) >> 16);
  }
}

/// *p = v or *p += v, the sum taken in W.
template <class W, class T, class Some>
DSX_INLINE void put_as(T* p, Pack<W> v, bool accumulate, Some some) {
  store(p, accumulate ? load<W>(p, some) + v : v, some);
}
template <class T, class Some>
DSX_INLINE void put(T* p, Pack<Wide<T>> v, bool accumulate, Some some) {
  put_as<Wide<T>>(p, v, accumulate, some);
}

template <class W>
DSX_INLINE W sum(Pack<W> v) {
  // Halves folded together, so that the order of additions doesn't depend on the compiler.
  constexpr size_t n = count_of<W>;
  W part[n];
  memcpy(part, &v, sizeof v);
  for (size_t half = n / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) part[i] += part[i + half];
  return part[0];
}
template <class W>
DSX_INLINE W largest(Pack<W> v) {
  W top = v[0];
  for (size_t i = 1; i < count_of<W>; ++i) top = v[i] > top ? v[i] : top;
  return top;
}

DSX_INLINE Pack<float> root(Pack<float> x) {
#if defined(__AVX512F__)
  return Pack<float>(_mm512_maskz_sqrt_ps(0xFFFF, __m512(x)));
#elif defined(__AVX__)
  return Pack<float>(_mm256_sqrt_ps(__m256(x)));
#else
  for (size_t i = 0; i < count_of<float>; ++i) x[i] = sqrtf(x[i]);
  return x;
#endif
}
DSX_INLINE Pack<double> root(Pack<double> x) {
  for (size_t i = 0; i < count_of<double>; ++i) x[i] = sqrt(x[i]);
  return x;
}

DSX_INLINE float root_of(float x) { return sqrtf(x); }
DSX_INLINE double root_of(double x) { return sqrt(x); }

/// The pack with 0 in the lanes that aren't meant, and with another filling there.
template <class W>
DSX_INLINE Pack<W> only(Pack<W> v, Whole, W = 0) {
  return v;
}
template <class W>
DSX_INLINE Pack<W> only(Pack<W> v, Part some, W filling = 0) {
  for (size_t i = some.n; i < count_of<W>; ++i) v[i] = filling;
  return v;
}

/// e^x within two units in the last place; below -87.3 it is 0, NaN stays NaN.
DSX_INLINE Pack<float> exp(Pack<float> x) {
  const Pack<float> low = spread(-87.3F), high = spread(89.0F), magic = spread(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer
  const auto vanishes = x < low;
  Pack<float> y = vanishes ? low : x;
  y = y > high ? high : y;
  const Pack<float> shifted = y * 1.44269504F + magic;
  const Pack<float> whole = shifted - magic;
  const Pack<float> near = y - whole * 0.693359375F;  // ln 2 in two parts: the first product is exact
  const Pack<float> r = near + whole * 2.12194440e-4F;
  Pack<float> p = spread(1.0F / 5040);
  p = p * r + 1.0F / 720;
  p = p * r + 1.0F / 120;
  p = p * r + 1.0F / 24;
  p = p * r + 1.0F / 6;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const Ints n = bits_as<Ints>(shifted) - 0x4B400000;
  const Ints half = n >> 1;  // 2^128 has no float: scale in two steps
  p = p * bits_as<Pack<float>>((half + 127) << 23) * bits_as<Pack<float>>((n - half + 127) << 23);
  return vanishes ? Pack<float>{} : p;
}
DSX_INLINE Pack<double> exp(Pack<double> x) {
  for (size_t i = 0; i < count_of<double>; ++i) x[i] = ::exp(x[i]);
  return x;
}
DSX_INLINE float exp_of(float x) { return expf(x); }
DSX_INLINE double exp_of(double x) { return ::exp(x); }

template <class T>
DSX_INLINE Wide<T> get(const T* p) {
  return *p;
}
template <>
DSX_INLINE float get<bf16>(const bf16* p) {
  return bits_as<float>(std::uint32_t(p->bits) << 16);
}

}  // namespace dsx::kernels::DSX_ISA
