// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Packs values as a codec says and unpacks them, alone, as sums, or with the error carried over to the next time.
///
///     kernels::quantize(block_int8<256>, weights, packed);                              // at a gather: half of bf16 travels
///     kernels::dequantize(block_int8<256>, packed, {weights, false});
///     kernels::quantize_with_feedback(block_int4<64>, gradient, error, packed);         // at a reduction; error stays on the rank
///     kernels::dequantize_sum(block_int4<64>, of_all_ranks, {gradient, false});
///
/// Values hold f32, f64 or bf16; a packed view holds codec.packed_bytes(values) bytes at any address. Bits depend neither on threads nor
/// on the instruction set; the layout and what becomes of NaN, infinities and zeros stand in codec/codec.hpp.
#pragma once

#include <dsx/codec/codec.hpp>
#include <dsx/tensor/view.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

namespace dsx::kernels {

void quantize(const Codec& codec, View values, View packed);
/// Packs values + error, and leaves in `error` what the packed form lacks of that sum (Seide et al. 2014): over time nothing is lost. It holds
/// the wide element of the values. Of a marked block, which comes out as NaN, nothing is owed: its error becomes 0.
void quantize_with_feedback(const Codec& codec, View values, View error, View packed);

/// values = or += the packed ones.
void dequantize(const Codec& codec, View packed, Grad values);
/// values = or += factor x the sum of packed operands, each rounded alone, added in the wide type in their order.
void dequantize_sum(const Codec& codec, std::span<const View> packed, Grad values, double factor = 1);

/// ||values + error|| / sqrt(n): the scale of `one_bit`; 0 for no elements, NaN where it isn't finite. `error` may be empty.
float sign_scale(View values, View error);
/// Packs the signs of values + error under a given scale: a slice of a whole that the scale belongs to. `error` may be empty.
void quantize_signs(float scale, View values, View error, View packed);

}  // namespace dsx::kernels

namespace dsx::reference {

struct BlockLevel {
  float scale = 1, minimum = -0.0F;  // of symmetric codes: adding -0 changes nothing
};

inline int top_code(const Codec& codec) { return (1 << (codec.bits - (codec.codes == Codes::symmetric ? 1 : 0))) - 1; }

/// The level of a block of values of type W.
template <class W>
BlockLevel block_level(const Codec& codec, const W* x, Extent n) {
  W low = x[0], high = codec.codes == Codes::symmetric ? std::abs(x[0]) : x[0];
  bool finite = true;
  for (Extent i = 0; i < n; ++i) {
    low = std::min(low, x[i]), high = std::max(high, codec.codes == Codes::symmetric ? std::abs(x[i]) : x[i]);
    finite = finite && std::isfinite(x[i]);
  }
  BlockLevel level;
  if (codec.codes == Codes::asymmetric) {
    level.minimum = float(low) + 0.0F;  // +0 for either zero
    if (W(level.minimum) > low) level.minimum = std::nextafter(level.minimum, -std::numeric_limits<float>::infinity());
  }
  const W range = W(high - W(level.minimum));
  const int top = top_code(codec);
  level.scale = range == 0 ? 1.0F : std::max(float(range / W(top)), std::numeric_limits<float>::min());
  if (!finite || !std::isfinite(std::fma(float(top), level.scale, level.minimum))) level = {std::numeric_limits<float>::quiet_NaN(), 0.0F};
  return level;
}

/// The value of a code.
template <class W>
W value_of(BlockLevel level, int code) {
  return std::fma(W(code), W(level.scale), W(level.minimum));
}
template <class W>
int code_of(const Codec& codec, BlockLevel level, W x) {
  if (codec.bits == 1) return x >= 0 ? 1 : -1;
  if (std::isnan(level.scale)) return 0;
  return int(std::nearbyint(W((x - W(level.minimum)) / W(level.scale))));
}

/// sqrt(sum x^2 / n), summed in double: in 64 parts, each by place modulo 16, their sixteen folded by halves.
template <class W>
float sign_scale(const W* x, Extent n) {
  double total = 0;
  for (Extent part = 0; part < 64; ++part) {
    const Range r = share({0, n}, 64, part);
    double sums[16]{};
    for (Extent i = r.begin; i < r.end; ++i) sums[(i - r.begin) % 16] = std::fma(double(x[i]), double(x[i]), sums[(i - r.begin) % 16]);
    for (Extent half = 8; half > 0; half /= 2)
      for (Extent i = 0; i < half; ++i) sums[i] += sums[i + half];
    total += sums[0];
  }
  const float scale = n ? float(std::sqrt(total / double(n))) : 0.0F;
  return std::isfinite(scale) ? scale : std::numeric_limits<float>::quiet_NaN();
}

/// Where a code stands: its byte in the packed buffer, and the distance of its lowest bit from the byte's.
struct CodePlace {
  Extent byte;
  unsigned shift;
};
inline CodePlace place_of(const Codec& codec, Extent elements, Extent i) {
  const Extent block = codec.block ? i / codec.block : 0, within = codec.block ? i % codec.block : i, each = 8 / codec.bits;
  const Extent begin = codec.head_bytes(elements) + block * codec.code_bytes(codec.block);
  return {begin + within / each, unsigned(8 - codec.bits * (1 + within % each))};
}

/// Packs x + error and updates the error; `error` may be null. `scale`, if given, is that of signs.
template <class T>
void quantize(const Codec& codec, const T* x, Wide<T>* error, Extent n, std::uint8_t* packed, const float* scale = nullptr) {
  using W = Wide<T>;
  const auto value = [&](Extent i) { return error ? W(x[i]) + error[i] : W(x[i]); };
  const Extent blocks = codec.blocks(n), each = codec.block ? codec.block : n;
  std::fill_n(packed, codec.packed_bytes(n), std::uint8_t(0));
  for (Extent b = 0; b < blocks; ++b) {
    const Extent begin = b * each, size = std::min(each, n - begin);
    std::vector<W> v(size);
    for (Extent i = 0; i < size; ++i) v[i] = value(begin + i);
    BlockLevel level;
    if (codec.bits == 1)
      level.scale = scale ? *scale : sign_scale(v.data(), size);
    else
      level = block_level(codec, v.data(), size);
    std::memcpy(packed + b * sizeof(float), &level.scale, sizeof(float));
    if (codec.codes == Codes::asymmetric) std::memcpy(packed + (blocks + b) * sizeof(float), &level.minimum, sizeof(float));
    for (Extent i = 0; i < size; ++i) {
      const int code = code_of(codec, level, v[i]);
      const CodePlace at = place_of(codec, n, begin + i);
      packed[at.byte] |= std::uint8_t(((codec.bits == 1 ? unsigned(code > 0) : unsigned(code)) & ((1U << codec.bits) - 1)) << at.shift);
      if (error) error[begin + i] = std::isnan(level.scale) ? W(0) : v[i] - value_of<W>(level, code);
    }
  }
}

/// Element i of a packed buffer.
template <class W>
W element(const Codec& codec, const std::uint8_t* packed, Extent n, Extent i) {
  const Extent block = codec.block ? i / codec.block : 0;
  BlockLevel level;
  std::memcpy(&level.scale, packed + block * sizeof(float), sizeof(float));
  if (codec.codes == Codes::asymmetric) std::memcpy(&level.minimum, packed + (codec.blocks(n) + block) * sizeof(float), sizeof(float));
  const CodePlace at = place_of(codec, n, i);
  int code = (packed[at.byte] >> at.shift) & ((1 << codec.bits) - 1);
  if (codec.bits == 1) code = code ? 1 : -1;
  if (codec.bits > 1 && codec.codes == Codes::symmetric && code > top_code(codec)) code -= 1 << codec.bits;
  return value_of<W>(level, code);
}

/// values = or += factor x the sum of the operands.
template <class T>
void dequantize_sum(const Codec& codec, std::span<const std::uint8_t* const> packed, Extent n, T* values, bool accumulate, double factor) {
  using W = Wide<T>;
  for (Extent i = 0; i < n; ++i) {
    W sum = 0;
    for (const std::uint8_t* one : packed) sum += element<W>(codec, one, n, i);
    values[i] = T(std::fma(sum, W(factor), accumulate ? W(values[i]) : -W(0)));
  }
}

}  // namespace dsx::reference
