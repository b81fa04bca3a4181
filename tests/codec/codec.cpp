// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include <dsx/codec/codec.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

constexpr Codec codecs[] = {
    block_int8<64>, block_int8<64, Codes::asymmetric>, block_int4<32>, block_int4<32, Codes::asymmetric>, block_int8<7>, block_int4<7>, one_bit};

}  // namespace

TEST_CASE("packed bytes are half, a quarter and a sixteenth of bf16, and four bytes a scale" * doctest::test_suite("wire")) {
  constexpr Extent n = 4096, bf16 = 2 * n;
  static_assert(block_int8<256>.packed_bytes(n) == bf16 / 2 + 16 * 4);
  static_assert(block_int4<256>.packed_bytes(n) == bf16 / 4 + 16 * 4);
  static_assert(block_int4<256, Codes::asymmetric>.packed_bytes(n) == bf16 / 4 + 16 * 8);
  static_assert(one_bit.packed_bytes(n) == bf16 / 16 + 4);
  for (const Codec& codec : codecs) CHECK(codec.packed_bytes(0) == 0);
  CHECK(block_int8<64>.packed_bytes(65) == 65 + 2 * 4);
  CHECK(block_int4<64>.packed_bytes(65) == 32 + 1 + 2 * 4);
  // Blocks of an odd size begin at bytes.
  CHECK(block_int4<7>.packed_bytes(15) == 4 + 4 + 1 + 3 * 4);
  CHECK(one_bit.packed_bytes(13) == 2 + 4);
}

TEST_CASE("slices cut at grains have the whole's blocks and code bytes") {
  for (const Codec& codec : codecs)
    for (const Extent n : {1, 63, 64, 65, 1000})
      for (Extent cut = 0; cut <= n; cut += codec.grain()) {
        const auto codes = [&](Extent elements) { return codec.packed_bytes(elements) - codec.head_bytes(elements); };
        CHECK(codes(cut) + codes(n - cut) == codes(n));
        if (codec.block) CHECK(codec.blocks(cut) + codec.blocks(n - cut) == codec.blocks(n));
      }
}

TEST_CASE("a codec is a value with a name") {
  CHECK(block_int8<64>.name() == "int8 by 64");
  CHECK(block_int4<128, Codes::asymmetric>.name() == "int4 asymmetric by 128");
  CHECK(one_bit.name() == "1 bit");
  CHECK(block_int8<64> == Codec{.bits = 8, .block = 64});
  CHECK(block_int8<64> != block_int8<32>);
  CHECK(&block_int8<64> == &block_int8<64>);
  for (const Codec& codec : codecs) CHECK(codec.known());
  for (const Codec& codec : {Codec{2, 64}, Codec{8, 0}, Codec{1, 64}, Codec{1, 0, Codes::asymmetric}}) CHECK_FALSE(codec.known());
}
