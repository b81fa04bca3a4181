// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Loops over packed blocks, compiled once for each instruction set. Codes go by in units of sixteen: 16, 8 or 2 bytes.
///
///     pick<CodecBody<T>>().pack(form, values, error, packed, first_block, last_block);
///
/// Nothing is left to the compiler's choice of fusing products and sums, so that bits are those of reference:: everywhere.
#pragma once

#include "simd.hpp"

#include <dsx/kernels/block_codec.hpp>

#include <utility>

namespace dsx::kernels {

/// Where things stand in a packed buffer. Of signs a block is a run of elements under the one scale.
struct PackedForm {
  std::size_t elements, block, block_bytes;
  std::size_t minima_at, codes_at;  // bytes; scales begin at 0
  unsigned bits;
  bool minima;
};

template <class T>
struct CodecBody {
  /// Blocks [first, last); `error` may be null. The scale of signs is there already.
  void (*pack)(const PackedForm& form, const T* values, Wide<T>* error, std::uint8_t* packed, std::size_t first, std::size_t last);
  void (*unpack)(const PackedForm& form, const View* packed, std::size_t operands, T* values, bool accumulate, Wide<T> factor, std::size_t first,
                 std::size_t last);
  /// The sum of squares of values + error.
  double (*squares)(const T* values, const Wide<T>* error, std::size_t n);
  static const CodecBody v3, v4;
};

namespace DSX_ISA {

typedef std::int8_t SixteenCodes __attribute__((vector_size(16)));
typedef std::int32_t FewInts __attribute__((vector_size(register_bytes / 2)));  // as many as a pack has doubles
inline constexpr size_t unit = 16;
/// Packs of W that hold a unit.
template <class W>
inline constexpr size_t packs_of = unit / count_of<W>;

DSX_INLINE Pack<float> fused(Pack<float> a, Pack<float> b, Pack<float> c) {
#if defined(__AVX512F__)
  return Pack<float>(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c)));
#elif defined(__FMA__)
  return Pack<float>(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c)));
#else
  for (size_t i = 0; i < count_of<float>; ++i) c[i] = fmaf(a[i], b[i], c[i]);
  return c;
#endif
}
DSX_INLINE Pack<double> fused(Pack<double> a, Pack<double> b, Pack<double> c) {
#if defined(__AVX512F__)
  return Pack<double>(_mm512_fmadd_pd(__m512d(a), __m512d(b), __m512d(c)));
#elif defined(__FMA__)
  return Pack<double>(_mm256_fmadd_pd(__m256d(a), __m256d(b), __m256d(c)));
#else
  for (size_t i = 0; i < count_of<double>; ++i) c[i] = ::fma(a[i], b[i], c[i]);
  return c;
#endif
}

template <class W>
using Key = std::conditional_t<sizeof(W) == 4, std::int32_t, std::int64_t>;
template <class W>
struct KeysOf {
  typedef Key<W> Type __attribute__((vector_size(register_bytes)));
};
template <class W>
using Keys = typename KeysOf<W>::Type;

/// Whole numbers in the order of the values, NaN beyond infinity on its side; of magnitudes the sign bit is left out.
template <bool Magnitude, class W>
DSX_INLINE Keys<W> keys_of(Pack<W> x) {
  const auto bits = bits_as<Keys<W>>(x);
  constexpr Key<W> no_sign = ~(Key<W>(1) << (8 * sizeof(W) - 1));
  if constexpr (Magnitude) return bits & no_sign;
  return bits ^ ((bits >> (8 * sizeof(W) - 1)) & no_sign);
}
template <class W>
DSX_INLINE W value_of_key(Key<W> key) {
  constexpr Key<W> no_sign = ~(Key<W>(1) << (8 * sizeof(W) - 1));
  return bits_as<W>(key ^ ((key >> (8 * sizeof(W) - 1)) & no_sign));
}
template <size_t Distance, class V, size_t... I>
DSX_INLINE V crossed(V v, std::index_sequence<I...>) {
  return __builtin_shufflevector(v, v, int(I ^ Distance)...);
}
/// The largest of the first 2 Half lanes.
template <size_t Half, class V>
DSX_INLINE auto largest_lane(V v) {
  if constexpr (Half == 0) {
    return v[0];
  } else {
    const V other = crossed<Half>(v, std::make_index_sequence<sizeof(V) / sizeof(v[0])>{});
    return largest_lane<Half / 2>(other > v ? other : v);
  }
}
template <class W>
DSX_INLINE Key<W> largest_key(Keys<W> v) {
  return largest_lane<count_of<W> / 2>(v);
}

/// The lanes of pack p of a unit that are meant.
DSX_INLINE Whole lanes_of(Whole, size_t, size_t) { return {}; }
DSX_INLINE Part lanes_of(Part some, size_t pack, size_t count) {
  const size_t begin = pack * count;
  const size_t left = some.n > begin ? some.n - begin : 0;
  return {left < count ? left : count};
}

template <class F>
DSX_INLINE void units(size_t n, const F& f) {
  size_t i = 0;
  for (; i + unit <= n; i += unit) f(i, Whole{});
  if (i < n) f(i, Part{n - i});
}

/// Adding it to a number rounds that to a whole one, half to even, whose two's complement stands in the lowest bits.
template <class W>
inline constexpr W magic = sizeof(W) == 4 ? W(12582912) : W(6755399441055744);  // 1.5 x 2^23, 1.5 x 2^52

/// The lowest byte of each lane.
DSX_INLINE SixteenCodes lowest_bytes(const Pack<float> (&x)[packs_of<float>]) {
#if defined(__AVX512F__)
  return SixteenCodes(_mm512_maskz_cvtepi32_epi8(0xFFFF, bits_as<__m512i>(x[0])));
#elif defined(__AVX2__)
  const __m256i low = _mm256_set1_epi32(0xFF);
  const __m256i a = _mm256_and_si256(bits_as<__m256i>(x[0]), low), b = _mm256_and_si256(bits_as<__m256i>(x[1]), low);
  const __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
  return SixteenCodes(_mm_packus_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
#else
  SixteenCodes codes;
  for (size_t i = 0; i < unit; ++i) codes[i] = std::int8_t(bits_as<Ints>(x[i / count_of<float>])[i % count_of<float>]);
  return codes;
#endif
}
DSX_INLINE SixteenCodes lowest_bytes(const Pack<double> (&x)[packs_of<double>]) {
  SixteenCodes codes;
  for (size_t i = 0; i < unit; ++i) codes[i] = std::int8_t(bits_as<Keys<double>>(x[i / count_of<double>])[i % count_of<double>]);
  return codes;
}

/// Bytes as numbers, from 128 on negative if signed.
template <bool Signed>
DSX_INLINE void numbers_of_bytes(SixteenCodes codes, Pack<float> (&x)[packs_of<float>]) {
#if defined(__AVX512F__)
  const __m512i whole = Signed ? _mm512_maskz_cvtepi8_epi32(0xFFFF, __m128i(codes)) : _mm512_maskz_cvtepu8_epi32(0xFFFF, __m128i(codes));
  x[0] = Pack<float>(_mm512_maskz_cvtepi32_ps(0xFFFF, whole));
#elif defined(__AVX2__)
  const __m128i first = __m128i(codes), second = _mm_unpackhi_epi64(first, first);
  x[0] = Pack<float>(_mm256_cvtepi32_ps(Signed ? _mm256_cvtepi8_epi32(first) : _mm256_cvtepu8_epi32(first)));
  x[1] = Pack<float>(_mm256_cvtepi32_ps(Signed ? _mm256_cvtepi8_epi32(second) : _mm256_cvtepu8_epi32(second)));
#else
  for (size_t i = 0; i < unit; ++i) x[i / count_of<float>][i % count_of<float>] = Signed ? float(codes[i]) : float(std::uint8_t(codes[i]));
#endif
}
template <bool Signed>
DSX_INLINE void numbers_of_bytes(SixteenCodes codes, Pack<double> (&x)[packs_of<double>]) {
  for (size_t i = 0; i < unit; ++i) x[i / count_of<double>][i % count_of<double>] = Signed ? double(codes[i]) : double(std::uint8_t(codes[i]));
}

/// A unit of codes as 2 Bits bytes, the first code in the highest bits.
template <unsigned Bits>
DSX_INLINE void store_codes(std::uint8_t* to, SixteenCodes codes) {
#if defined(__SSE4_1__)
  if constexpr (Bits == 8) {
    memcpy(to, &codes, 16);
  } else if constexpr (Bits == 4) {
    const __m128i nibbles = _mm_and_si128(__m128i(codes), _mm_set1_epi8(15));
    const __m128i pairs = _mm_maddubs_epi16(nibbles, _mm_set1_epi16(0x0110));  // 16 x first + second
    const __m128i bytes = _mm_packus_epi16(pairs, pairs);
    memcpy(to, &bytes, 8);
  } else {
    const __m128i turned = _mm_shuffle_epi8(__m128i(codes), _mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    const auto positive = std::uint16_t(~unsigned(_mm_movemask_epi8(turned)));
    memcpy(to, &positive, 2);
  }
#else
  if constexpr (Bits == 8) memcpy(to, &codes, 16);
  if constexpr (Bits == 4)
    for (size_t i = 0; i < unit / 2; ++i) to[i] = std::uint8_t((unsigned(codes[2 * i]) << 4) | (unsigned(codes[2 * i + 1]) & 15U));
  if constexpr (Bits == 1)
    for (size_t b = 0; b < 2; ++b) {
      unsigned byte = 0;
      for (size_t i = 0; i < 8; ++i) byte |= unsigned(codes[8 * b + i] > 0) << (7 - i);
      to[b] = std::uint8_t(byte);
    }
#endif
}
template <unsigned Bits>
DSX_INLINE void store_codes(std::uint8_t* to, SixteenCodes codes, Whole) {
  store_codes<Bits>(to, codes);
}
/// Unused bits are 0.
template <unsigned Bits>
DSX_INLINE void store_codes(std::uint8_t* to, SixteenCodes codes, Part some) {
  std::uint8_t all[2 * Bits];
  store_codes<Bits>(all, codes);
  const size_t bytes = (some.n * Bits + 7) / 8, unused = 8 * bytes - some.n * Bits;
  all[bytes - 1] = std::uint8_t(all[bytes - 1] & (0xFFU << unused));
  memcpy(to, all, bytes);
}

template <unsigned Bits, bool Signed>
DSX_INLINE SixteenCodes load_codes(const std::uint8_t* from) {
  SixteenCodes codes{};
#if defined(__SSE4_1__)
  if constexpr (Bits == 8) {
    memcpy(&codes, from, 16);
  } else if constexpr (Bits == 4) {
    std::uint64_t word;
    memcpy(&word, from, 8);
    const __m128i bytes = _mm_cvtsi64_si128(std::int64_t(word)), low = _mm_set1_epi8(15);
    const __m128i nibbles = _mm_unpacklo_epi8(_mm_and_si128(_mm_srli_epi16(bytes, 4), low), _mm_and_si128(bytes, low));
    const __m128i sign = _mm_set1_epi8(Signed ? 8 : 0);
    codes = SixteenCodes(_mm_sub_epi8(_mm_xor_si128(nibbles, sign), sign));
  } else {
    std::uint16_t word;
    memcpy(&word, from, 2);
    const __m128i bytes = _mm_shuffle_epi8(_mm_cvtsi32_si128(word), _mm_set_epi8(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0));
    const __m128i bit = _mm_set1_epi64x(0x0102040810204080LL), two = _mm_set1_epi8(2);
    const __m128i set = _mm_cmpeq_epi8(_mm_and_si128(bytes, bit), bit);
    codes = SixteenCodes(_mm_sub_epi8(_mm_and_si128(set, two), _mm_set1_epi8(1)));
  }
#else
  if constexpr (Bits == 8) memcpy(&codes, from, 16);
  if constexpr (Bits == 4)
    for (size_t i = 0; i < unit; ++i) {
      const int nibble = i % 2 ? from[i / 2] & 15 : from[i / 2] >> 4;
      codes[i] = std::int8_t(Signed ? (nibble ^ 8) - 8 : nibble);
    }
  if constexpr (Bits == 1)
    for (size_t i = 0; i < unit; ++i) codes[i] = (from[i / 8] >> (7 - i % 8)) & 1 ? 1 : -1;
#endif
  return codes;
}
template <unsigned Bits, bool Signed>
DSX_INLINE SixteenCodes load_codes(const std::uint8_t* from, Whole) {
  return load_codes<Bits, Signed>(from);
}
template <unsigned Bits, bool Signed>
DSX_INLINE SixteenCodes load_codes(const std::uint8_t* from, Part some) {
  std::uint8_t all[2 * Bits]{};
  memcpy(all, from, (some.n * Bits + 7) / 8);
  return load_codes<Bits, Signed>(all);
}

struct Level {
  float scale, minimum;
};

/// Bytes that are asked for ahead of their use: while a block's codes are computed, nothing else would ask for the next one.
inline constexpr size_t bytes_ahead = 2048;

/// values + error, as they are packed.
template <bool Feedback, class T, class Some>
DSX_INLINE Pack<Wide<T>> owed(const T* values, const Wide<T>* error, size_t i, Some some) {
  __builtin_prefetch(reinterpret_cast<const char*>(values + i) + bytes_ahead);
  if constexpr (Feedback) __builtin_prefetch(reinterpret_cast<const char*>(error + i) + bytes_ahead);
  const Pack<Wide<T>> v = load<Wide<T>>(values + i, some);
  if constexpr (Feedback) return v + load<Wide<T>>(error + i, some);
  return v;
}

template <unsigned Bits, bool Minima, bool Feedback, class T>
DSX_INLINE Level level_of(const T* values, const Wide<T>* error, size_t n) {
  using W = Wide<T>;
  const Pack<W> first = spread(owed<Feedback>(values, error, 0, Part{1})[0]);
  Keys<W> high = keys_of<!Minima, W>(first), low = ~high;
  lanes<W>(n, [&](size_t i, auto some) {
    const Keys<W> key = keys_of<!Minima, W>(only<W>(owed<Feedback>(values, error, i, some), some, first[0]));
    high = key > high ? key : high;
    if constexpr (Minima) low = ~key > low ? ~key : low;
  });
  Level level{1, -0.0F};
  if constexpr (Minima) {
    const W least = value_of_key<W>(~largest_key<W>(low));
    level.minimum = float(least) + 0.0F;
    if (W(level.minimum) > least) level.minimum = nextafterf(level.minimum, -__builtin_inff());
  }
  // What isn't finite among the values is or makes the range, and so the scale.
  constexpr int top = (1 << (Bits - (Minima ? 0 : 1))) - 1;
  const W range = value_of_key<W>(largest_key<W>(high)) - W(level.minimum);
  const float scale = float(range / W(top)), smallest = 0x1p-126F;
  if (!(range == W(0))) level.scale = scale < smallest ? smallest : scale;
  if (!__builtin_isfinite(fmaf(float(top), level.scale, level.minimum))) level = {__builtin_nanf(""), 0};
  return level;
}

/// The whole number that stands for a value, plus `magic`. It is never beyond the highest code: but for rounding, a scale is at least the
/// range over that code.
template <unsigned Bits, class V>
DSX_INLINE V magic_code_of(V v, V scale, V minimum) {
  using W = __typeof__(v[0] + v[0]);
  if constexpr (Bits == 1) return v >= W(0) ? spread<W>(magic<W> + 1) : spread<W>(magic<W> - 1);
  return (v - minimum) / scale + magic<W>;
}

template <unsigned Bits, bool Feedback, class T>
DSX_INLINE void pack_block(const T* values, Wide<T>* error, size_t n, Level level, std::uint8_t* codes) {
  using W = Wide<T>;
  const bool marked = level.scale != level.scale;
  if (marked && Bits > 1) {
    memset(codes, 0, (n * Bits + 7) / 8);
  } else {
    const Pack<W> scale = spread(W(level.scale)), minimum = spread(W(level.minimum));
    units(n, [&](size_t i, auto some) {
      Pack<W> code[packs_of<W>];
      for (size_t p = 0; p < packs_of<W>; ++p) {
        const size_t at = i + p * count_of<W>;
        const auto here = lanes_of(some, p, count_of<W>);
        const Pack<W> v = owed<Feedback>(values, error, at, here);
        code[p] = magic_code_of<Bits>(v, scale, minimum);
        if constexpr (Feedback) store(error + at, v - fused(code[p] - magic<W>, scale, minimum), here);
      }
      store_codes<Bits>(codes + i * Bits / 8, lowest_bytes(code), some);
    });
  }
  if (Feedback && marked)
    for (size_t i = 0; i < n; ++i) error[i] = 0;
}

template <unsigned Bits, bool Minima, bool Feedback, class T>
void pack_blocks(const PackedForm& form, const T* values, Wide<T>* error, std::uint8_t* packed, size_t first, size_t last) {
  for (size_t b = first; b < last; ++b) {
    const size_t begin = b * form.block, left = form.elements - begin, n = left < form.block ? left : form.block;
    Wide<T>* const errors = Feedback ? error + begin : nullptr;
    Level level{1, -0.0F};
    if constexpr (Bits == 1) {
      memcpy(&level.scale, packed, sizeof(float));
    } else {
      level = level_of<Bits, Minima, Feedback>(values + begin, errors, n);
      memcpy(packed + b * sizeof(float), &level.scale, sizeof(float));
      if constexpr (Minima) memcpy(packed + form.minima_at + b * sizeof(float), &level.minimum, sizeof(float));
    }
    pack_block<Bits, Feedback>(values + begin, errors, n, level, packed + form.codes_at + b * form.block_bytes);
  }
}

template <unsigned Bits, bool Minima, class T>
void unpack_blocks(const PackedForm& form, const View* packed, size_t operands, T* values, bool accumulate, Wide<T> factor, size_t first,
                   size_t last) {
  using W = Wide<T>;
  for (size_t b = first; b < last; ++b) {
    const size_t begin = b * form.block, left = form.elements - begin;
    const size_t level_at = Bits == 1 ? 0 : b * sizeof(float), codes_at = form.codes_at + b * form.block_bytes;
    units(left < form.block ? left : form.block, [&](size_t i, auto some) {
      Pack<W> sums[packs_of<W>]{};
      for (size_t k = 0; k < operands; ++k) {
        const auto* operand = static_cast<const std::uint8_t*>(packed[k].data);
        Level level{1, -0.0F};
        memcpy(&level.scale, operand + level_at, sizeof(float));
        if constexpr (Minima) memcpy(&level.minimum, operand + form.minima_at + level_at, sizeof(float));
        Pack<W> code[packs_of<W>];
        numbers_of_bytes<!Minima>(load_codes<Bits, !Minima>(operand + codes_at + i * Bits / 8, some), code);
        for (size_t p = 0; p < packs_of<W>; ++p) sums[p] += fused(code[p], spread(W(level.scale)), spread(W(level.minimum)));
      }
      for (size_t p = 0; p < packs_of<W>; ++p) {
        const auto here = lanes_of(some, p, count_of<W>);
        T* const to = values + begin + i + p * count_of<W>;
        store(to, fused(sums[p], spread(factor), accumulate ? load<W>(to, here) : spread(W(-0.0))), here);
      }
    });
  }
}

/// f.operator()<Bits, Minima>() for the form.
template <class F>
DSX_INLINE void with_form(const PackedForm& form, const F& f) {
  if (form.bits == 8 && !form.minima) f.template operator()<8, false>();
  if (form.bits == 8 && form.minima) f.template operator()<8, true>();
  if (form.bits == 4 && !form.minima) f.template operator()<4, false>();
  if (form.bits == 4 && form.minima) f.template operator()<4, true>();
  if (form.bits == 1) f.template operator()<1, false>();
}

template <class T>
void pack(const PackedForm& form, const T* values, Wide<T>* error, std::uint8_t* packed, size_t first, size_t last) {
  with_form(form, [&]<unsigned Bits, bool Minima>() {
    if (error)
      pack_blocks<Bits, Minima, true>(form, values, error, packed, first, last);
    else
      pack_blocks<Bits, Minima, false>(form, values, error, packed, first, last);
  });
}

template <class T>
void unpack(const PackedForm& form, const View* packed, size_t operands, T* values, bool accumulate, Wide<T> factor, size_t first, size_t last) {
  with_form(form,
            [&]<unsigned Bits, bool Minima>() { unpack_blocks<Bits, Minima>(form, packed, operands, values, accumulate, factor, first, last); });
}

DSX_INLINE void add_squares(const Pack<float> (&v)[packs_of<float>], Pack<double> (&sums)[packs_of<double>]) {
  for (size_t p = 0; p < packs_of<float>; ++p) {
    FewFloats halves[2];
    memcpy(halves, &v[p], sizeof halves);
    for (size_t h = 0; h < 2; ++h) {
      const Pack<double> x = __builtin_convertvector(halves[h], Pack<double>);
      sums[2 * p + h] = fused(x, x, sums[2 * p + h]);
    }
  }
}
DSX_INLINE void add_squares(const Pack<double> (&v)[packs_of<double>], Pack<double> (&sums)[packs_of<double>]) {
  for (size_t p = 0; p < packs_of<double>; ++p) sums[p] = fused(v[p], v[p], sums[p]);
}

template <bool Feedback, class T>
DSX_INLINE double squares_of(const T* values, const Wide<T>* error, size_t n) {
  using W = Wide<T>;
  Pack<double> sums[packs_of<double>]{};  // sixteen, whatever the instruction set
  units(n, [&](size_t i, auto some) {
    Pack<W> v[packs_of<W>];
    for (size_t p = 0; p < packs_of<W>; ++p) v[p] = owed<Feedback>(values, error, i + p * count_of<W>, lanes_of(some, p, count_of<W>));
    add_squares(v, sums);
  });
  double parts[unit];
  memcpy(parts, sums, sizeof parts);
  for (size_t half = unit / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) parts[i] += parts[i + half];
  return parts[0];
}

template <class T>
double squares(const T* values, const Wide<T>* error, size_t n) {
  return error ? squares_of<true>(values, error, n) : squares_of<false>(values, error, n);
}

}  // namespace DSX_ISA

#define DSX_BODY(T)                    \
  template <>                          \
  const CodecBody<T> CodecBody<T>::v3; \
  template <>                          \
  const CodecBody<T> CodecBody<T>::v4; \
  template <>                          \
  const CodecBody<T> CodecBody<T>::DSX_ISA{DSX_ISA::pack<T>, DSX_ISA::unpack<T>, DSX_ISA::squares<T>};
DSX_BODY(float)
DSX_BODY(double)
DSX_BODY(bf16)
#undef DSX_BODY

}  // namespace dsx::kernels
