// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// How low-bit numbers are packed: whole-number codes with a scale for each block, or signs with one scale.
///
///     constexpr const Codec* codec = &block_int8<256>;                 // a quantizer's answer at a site
///     std::vector<std::byte> packed(codec->packed_bytes(1000));       // 1000 codes, 4 scales of 4 bytes
///     kernels::quantize(*codec, values, {packed.data(), {packed.size(), 1}, Element::u8});
///
/// A packed buffer of n elements is, without a gap, for b = blocks(n):
///
///     scales   b floats
///     minima   b floats, of asymmetric codes only
///     codes    block after block, each beginning at a byte; 8, 4 or 1 bits each, the earlier in the higher bits; unused bits are 0
///
/// A value is scale x code, or minimum + scale x code, rounded once. Its code is (value - minimum) / scale, rounded half to even:
///
///     symmetric    two's complement, -127..127 or -7..7;  scale = max|x| / 127 or 7
///     asymmetric   unsigned, 0..255 or 0..15;             scale = (max x - min x) / 255 or 15, minimum = min x
///     one bit      1 is +scale, for +0 and -0 too; 0 is -scale;  scale = ||x|| / sqrt(n) (Tang et al. 2021, arXiv 2102.02888)
///
/// Scales are never denormal, so that the error stays within scale / 2 (and the last place of a result) down to the smallest numbers;
/// of a block of equal numbers asymmetric codes give back each bit, of a block of zeros all do. A block that holds a NaN or an infinity,
/// or whose range or highest code's value is beyond a float, is marked: its scale is NaN, so each of its values comes back as NaN, never as a
/// finite number. For one bit the whole operand is such a block.
#pragma once

#include <dsx/core/shape.hpp>

#include <string>

namespace dsx {

enum class Codes : std::uint8_t { symmetric, asymmetric };

struct Codec {
  unsigned bits = 8;  // of a code: 8, 4 or 1
  Extent block = 64;  // elements that share a scale; 0: all
  Codes codes = Codes::symmetric;

  /// Whether kernels pack it: 8 or 4 bits by blocks, or signs under one scale.
  constexpr bool known() const { return bits == 1 ? block == 0 && codes == Codes::symmetric : (bits == 8 || bits == 4) && block > 0; }

  constexpr Extent blocks(Extent elements) const { return block ? (elements + block - 1) / block : Extent(elements > 0); }
  /// Bytes of the codes of so many elements of one block.
  constexpr Extent code_bytes(Extent elements) const { return (elements * bits + 7) / 8; }
  /// Where the codes of a packed buffer begin; before them stand scales and minima.
  constexpr Extent head_bytes(Extent elements) const { return blocks(elements) * sizeof(float) * (codes == Codes::asymmetric ? 2 : 1); }
  constexpr Extent packed_bytes(Extent elements) const {
    const Extent whole = block ? elements / block : 0;
    return head_bytes(elements) + whole * code_bytes(block) + code_bytes(elements - whole * block);
  }
  /// A slice that begins and ends at multiples of it (or at the end) can be packed alone into the same codes and scales. Slices of signs
  /// only share out the bytes: their scale is the whole's (kernels::quantize_signs).
  constexpr Extent grain() const { return block ? block : 8; }

  /// For a person: "int4 asymmetric by 64", "1 bit".
  std::string name() const {
    if (bits == 1) return "1 bit";
    return "int" + std::to_string(bits) + (codes == Codes::asymmetric ? " asymmetric by " : " by ") + std::to_string(block);
  }
  friend constexpr bool operator==(const Codec&, const Codec&) = default;
};

/// A byte a code: half of bf16, and 4 or 8 bytes a block.
template <Extent Block, Codes Kind = Codes::symmetric>
  requires(Block > 0)
inline constexpr Codec block_int8{8, Block, Kind};
/// Two codes a byte.
template <Extent Block, Codes Kind = Codes::symmetric>
  requires(Block > 0)
inline constexpr Codec block_int4{4, Block, Kind};
/// Eight signs a byte, and 4 bytes in all.
inline constexpr Codec one_bit{1, 0};

}  // namespace dsx
