// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include "comparison.hpp"

#include <dsx/core/error.hpp>
#include <dsx/kernels/block_codec.hpp>

#include <doctest/doctest.h>

#include <numbers>
#include <string>

using namespace dsx;
using namespace dsx::test;

namespace {

constexpr Codec by_block[] = {
    block_int8<64>, block_int8<64, Codes::asymmetric>,  block_int4<64>, block_int4<64, Codes::asymmetric>, block_int8<5>, block_int4<5>,
    block_int4<48>, block_int4<1000, Codes::asymmetric>};
constexpr Codec all_codecs[] = {by_block[0], by_block[1], by_block[2], by_block[3], by_block[4], by_block[5], by_block[6], by_block[7], one_bit};
constexpr Extent sizes[] = {0, 1, 2, 7, 16, 63, 64, 65, 1000, 40001};

constexpr float infinity = std::numeric_limits<float>::infinity(), not_a_number = std::numeric_limits<float>::quiet_NaN(),
                largest = std::numeric_limits<float>::max(), tiniest = std::numeric_limits<float>::denorm_min(),
                smallest = std::numeric_limits<float>::min();

using Bytes = std::vector<std::uint8_t>;
View bytes_view(Bytes& b) { return {b.data(), {b.size(), 1}, Element::u8, Place::cpu, nullptr}; }
/// Filled with what no kernel writes everywhere, so that what one leaves out shows.
Bytes room(const Codec& codec, Extent n) { return Bytes(codec.packed_bytes(n), 0xA5); }

template <class T>
View view_of(const std::vector<T>& x) {
  return {const_cast<T*>(x.data()), {x.size(), 1}, element_of<T>, Place::cpu, nullptr};
}
template <class T>
Bytes packed_by(const Codec& codec, const std::vector<T>& x) {
  Bytes packed = room(codec, x.size());
  kernels::quantize(codec, view_of(x), bytes_view(packed));
  return packed;
}
template <class T>
std::vector<T> unpacked(const Codec& codec, Bytes packed, Extent n) {
  std::vector<T> x(n, T(not_a_number));
  kernels::dequantize(codec, bytes_view(packed), {view_of(x), false});
  return x;
}
template <class T>
std::vector<T> there_and_back(const Codec& codec, const std::vector<T>& x) {
  return unpacked<T>(codec, packed_by(codec, x), x.size());
}

/// Whether two buffers hold the same bits, any NaN being like any other.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return false;
  for (Extent i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], sizeof(T)) != 0 && !(std::isnan(Wide<T>(a[i])) && std::isnan(Wide<T>(b[i])))) return false;
  return true;
}

/// Samples of a normal distribution by Box and Muller.
template <class T = float>
std::vector<T> normal(Extent n, std::uint64_t seed, double deviation = 1) {
  std::vector<T> x(n);
  for (Extent i = 0; i < n; ++i) {
    const double u = 1 - double(uniform({.seed = seed}, i, 0)), v = double(uniform({.seed = seed}, i, 1));
    x[i] = T(Wide<T>(deviation * std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v)));
  }
  return x;
}

/// Blocks of all sorts: plain, tiny, huge, constant, zeros, one outlier, ones with NaN and infinities.
template <class T>
std::vector<T> awkward(Extent n, std::uint64_t seed) {
  std::vector<T> x = normal<T>(n, seed);
  const auto set = [&](Extent i, float value) {
    if (i < n) x[i] = T(value);
  };
  for (Extent i = 0; i < n; ++i) {
    const Extent sort = i / 64 % 12;
    if (sort == 1) set(i, float(x[i]) * 1e-41F);
    if (sort == 2) set(i, float(x[i]) * 1e37F);
    if (sort == 3) set(i, 0.75F);
    if (sort == 4) set(i, i % 3 ? 0.0F : -0.0F);
    if (sort == 5) set(i, float(int(i % 32)) - 16 + 0.5F);  // ties
    if (sort == 6) set(i, 1e6F + float(x[i]));              // a range far from zero
  }
  set(7 * 64 + 9, 300), set(8 * 64 + 1, not_a_number), set(9 * 64 + 63, infinity), set(10 * 64, -infinity), set(11 * 64 + 2, largest),
      set(11 * 64 + 3, -largest);
  return x;
}

template <class T>
std::vector<const std::uint8_t*> pointers(const std::vector<T>& buffers) {
  std::vector<const std::uint8_t*> all;
  for (const auto& one : buffers) all.push_back(one.data());
  return all;
}

float scale_in(const Bytes& packed, Extent block = 0) {
  float scale;
  std::memcpy(&scale, packed.data() + block * sizeof scale, sizeof scale);
  return scale;
}

}  // namespace

TEST_CASE("packed bytes and carried errors are those of the reference, bit for bit") {
  for (const Codec& codec : all_codecs)
    for (const Extent n : sizes)
      for_elements([&](auto zero) {
        using T = decltype(zero);
        using W = Wide<T>;
        for (const bool hostile : {false, true}) {
          CAPTURE(concat(codec.name(), ", ", n, " of ", name_of(element_of<T>), (hostile ? ", hostile" : "")));
          const std::vector<T> x = hostile ? awkward<T>(n, 3) : normal<T>(n, 3);
          std::vector<W> error = normal<W>(n, 4, 0.01), expected_error = error;
          Bytes expected = room(codec, n), fed = expected;
          reference::quantize(codec, x.data(), static_cast<W*>(nullptr), n, expected.data());
          CHECK(packed_by(codec, x) == expected);
          reference::quantize(codec, x.data(), expected_error.data(), n, expected.data());
          kernels::quantize_with_feedback(codec, view_of(x), view_of(error), bytes_view(fed));
          CHECK(fed == expected);
          CHECK(same_bits(error, expected_error));
        }
      });
}

TEST_CASE("unpacked values and sums of packed operands are those of the reference, bit for bit") {
  for (const Codec& codec : all_codecs)
    for (const Extent n : sizes)
      for_elements([&](auto zero) {
        using T = decltype(zero);
        for (const bool accumulate : {false, true})
          for (const Extent operands : {0, 1, 2, 5}) {
            CAPTURE(concat(codec.name(), ", ", operands, " times ", n, " of ", name_of(element_of<T>)));
            std::vector<Bytes> packed;
            std::vector<View> views;
            for (Extent k = 0; k < operands; ++k) packed.push_back(packed_by(codec, k == 3 ? awkward<T>(n, k) : normal<T>(n, k)));
            for (Bytes& one : packed) views.push_back(bytes_view(one));
            std::vector<T> sum = accumulate ? normal<T>(n, 9) : std::vector<T>(n, T(not_a_number)), expected = sum;
            kernels::dequantize_sum(codec, views, {view_of(sum), accumulate}, 0.3);
            reference::dequantize_sum(codec, pointers(packed), n, expected.data(), accumulate, 0.3);
            CHECK(same_bits(sum, expected));
            if (operands == 1) {
              kernels::dequantize(codec, views[0], {view_of(sum), false});
              reference::dequantize_sum(codec, pointers(packed), n, expected.data(), false, 1);
              CHECK(same_bits(sum, expected));
            }
          }
      });
}

TEST_CASE("packed bits don't depend on the number of threads") {
  const std::vector<float> x = awkward<float>(200003, 5);
  for (const Codec& codec : all_codecs)
    CHECK(same_on_any_threads([&] {
      std::vector<float> error = normal(x.size(), 6, 0.01), sum(x.size());
      Bytes packed = room(codec, x.size());
      kernels::quantize_with_feedback(codec, view_of(x), view_of(error), bytes_view(packed));
      const View both[] = {bytes_view(packed), bytes_view(packed)};
      kernels::dequantize_sum(codec, both, {view_of(sum), false});
      Bytes bits = packed;
      for (const auto& floats : {error, sum})
        for (const float e : floats)
          for (int shift = 0; shift < 32; shift += 8) bits.push_back(std::uint8_t(std::isnan(e) ? 0xFF : std::bit_cast<std::uint32_t>(e) >> shift));
      return bits;
    }));
  const std::vector<float> plain = normal(200003, 5);
  CHECK(same_on_any_threads([&] { return kernels::sign_scale(view_of(plain), {}); }));
}

TEST_CASE("what comes back differs by half a scale at most") {
  const Extent n = 10007;
  for (const Codec& codec : by_block)
    for (const double size : {1.0, 1e-30, 1e-41, 1e30})
      for_elements([&](auto zero) {
        using T = decltype(zero);
        const std::vector<T> x = normal<T>(n, 7, size);
        const Bytes packed = packed_by(codec, x);
        const std::vector<Wide<T>> back = unpacked<Wide<T>>(codec, packed, n);
        Extent worse = 0;
        for (Extent i = 0; i < n; ++i) {
          const double scale = scale_in(packed, i / codec.block), last_place = 2e-7 * std::abs(double(x[i]));
          worse += !(std::abs(double(x[i]) - double(back[i])) <= scale / 2 * (1 + 1e-4) + last_place);
        }
        CAPTURE(concat(codec.name(), ", size ", size, ", ", name_of(element_of<T>)));
        CHECK(worse == 0);
      });
}

TEST_CASE("signal to noise of normal samples lies in its band") {
  // Decibels at 2^20 samples; of signs 10 log10 of 1 / (2 - 2 sqrt(2 / pi)).
  const std::pair<Codec, double> bands[] = {
      {block_int8<64>, 44.5}, {block_int8<4096>, 41.2}, {block_int4<64, Codes::asymmetric>, 21.0},
      {block_int4<64>, 19.4}, {block_int4<4096>, 16.0}, {one_bit, -10 * std::log10(2 - 2 * std::sqrt(2 / std::numbers::pi))}};
  const std::vector<float> x = normal(1 << 20, 8);
  for (const auto& [codec, band] : bands) {
    const std::vector<float> back = there_and_back(codec, x);
    double signal = 0, noise = 0;
    for (Extent i = 0; i < x.size(); ++i) signal += double(x[i]) * double(x[i]), noise += std::pow(double(x[i]) - double(back[i]), 2);
    const double decibels = 10 * std::log10(signal / noise);
    CAPTURE(concat(codec.name(), ": ", decibels, ", expected ", band));
    CHECK(std::abs(decibels - band) < 0.2);
  }
}

TEST_CASE("one number that isn't finite turns its whole block into NaN, and no other") {
  for (const Codec& codec : all_codecs)
    for_elements([&](auto zero) {
      using T = decltype(zero);
      for (const float strange : {not_a_number, infinity, -infinity})
        for (const Extent at : {0, 100, 199}) {
          std::vector<T> x = normal<T>(200, 1);
          x[at] = T(strange);
          const std::vector<T> back = there_and_back(codec, x);
          const Extent block = codec.block ? codec.block : x.size();
          for (Extent i = 0; i < x.size(); ++i) CHECK(std::isnan(Wide<T>(back[i])) == (i / block == at / block));
        }
    });
  // An infinite sum of a value and its error is no different, and leaves nothing owed.
  for (const Codec& codec : all_codecs) {
    std::vector<float> x = normal(200, 1), error = normal(200, 2, 0.01);
    error[100] = -infinity;
    Bytes packed = room(codec, 200);
    kernels::quantize_with_feedback(codec, view_of(x), view_of(error), bytes_view(packed));
    CHECK(std::isnan(unpacked<float>(codec, packed, 200)[100]));
    for (const float e : error) CHECK(std::isfinite(e));
    CHECK(error[100] == 0);
  }
}

TEST_CASE("numbers beyond a float's range mark their block instead of wrapping") {
  for (const Codec& codec : {block_int8<64>, block_int4<64>, one_bit}) {
    const std::vector<double> x{1e300, 1};
    for (const double e : there_and_back(codec, x)) CHECK(std::isnan(e));
  }
  const std::vector<float> wide{largest, -largest};
  for (const float e : there_and_back(block_int8<64, Codes::asymmetric>, wide)) CHECK(std::isnan(e));
  // Within it nothing is marked.
  for (const Codec& codec : {block_int8<64>, block_int4<64>})
    for (const float e : there_and_back(codec, std::vector<float>{3.4e38F, -3.4e38F})) CHECK(std::abs(e) == doctest::Approx(3.4e38));
  for (const float e : there_and_back(block_int8<64, Codes::asymmetric>, std::vector<float>{largest, largest})) CHECK(e == largest);
}

TEST_CASE("zeros and equal numbers come back as they were") {
  for (const Extent n : sizes) {
    for (const Codec& codec : all_codecs) {
      const std::vector<float> zeros(n);
      CHECK(same_bits(there_and_back(codec, zeros), zeros));
    }
    for (const float value : {0.1F, -3e-39F, tiniest, -largest, 7e30F})
      for (const Codec& codec : {block_int8<64, Codes::asymmetric>, block_int4<64, Codes::asymmetric>})
        CHECK(there_and_back(codec, std::vector<float>(n, value)) == std::vector<float>(n, value));
  }
  // A minimum that no float holds is rounded down, so that codes begin at it.
  const std::vector<double> fine{1 + 1e-12, 1 + 2e-12};
  for (const double e : there_and_back(block_int8<64, Codes::asymmetric>, fine)) CHECK(e == doctest::Approx(1.0).epsilon(1e-9));
}

TEST_CASE("scales are never denormal and never zero") {
  for (const float size : {0.0F, tiniest, 190 * tiniest, smallest, 100 * smallest})
    for (const Codec& codec : by_block) {
      CAPTURE(concat(codec.name(), " of ", size));
      const float scale = scale_in(packed_by(codec, std::vector<float>{size, 0, -size}));
      CHECK(scale >= smallest);
      CHECK(std::isfinite(scale));
    }
}

TEST_CASE("the first of two codes lies in the high bits, the first of eight signs in the highest") {
  const std::vector<float> x{7, -1, 0, -7, 3};
  const Bytes four = packed_by(block_int4<8>, x);
  CHECK(scale_in(four) == 1);
  CHECK(Bytes(four.begin() + 4, four.end()) == Bytes{0x7F, 0x09, 0x30});
  const Bytes signs = packed_by(one_bit, std::vector<float>{1, -1, -1, 1, 1, 1, -1, -1, -1, 0, -0.0F});
  CHECK(Bytes(signs.begin() + 4, signs.end()) == Bytes{0x9C, 0x60});
  const Bytes above = packed_by(block_int8<8, Codes::asymmetric>, std::vector<float>{-10, 245, 0});
  CHECK(scale_in(above, 1) == -10);
  CHECK(Bytes(above.begin() + 8, above.end()) == Bytes{0, 255, 10});
}

TEST_CASE("slices cut at grains are packed alone into the same codes and scales") {
  const Extent n = 1003;
  const std::vector<float> x = normal(n, 11);
  for (const Codec& codec : by_block) {
    const std::vector<float> whole = there_and_back(codec, x);
    for (const Extent parts : {1, 2, 3}) {
      std::vector<float> joined;
      const Extent each = round_up((n + parts - 1) / parts, codec.grain());
      for (Extent p = 0; p < parts; ++p) {
        const std::vector<float> slice(x.begin() + std::ptrdiff_t(std::min(n, p * each)), x.begin() + std::ptrdiff_t(std::min(n, (p + 1) * each)));
        for (const float e : there_and_back(codec, slice)) joined.push_back(e);
      }
      CHECK(joined == whole);
    }
  }
}

TEST_CASE("slices of signs under the whole's scale come back like the whole") {
  const std::vector<double> x = normal<double>(1003, 12);
  const std::vector<double> first = normal<double>(x.size(), 13);
  std::vector<double> error = first, sliced_error = first, joined(x.size());
  Bytes packed = room(one_bit, x.size());
  kernels::quantize_with_feedback(one_bit, view_of(x), view_of(error), bytes_view(packed));
  const float scale = kernels::sign_scale(view_of(x), view_of(sliced_error));
  CHECK(scale == scale_in(packed));
  for (const Range r : {Range{0, 17}, Range{17, 17}, Range{17, 800}, Range{800, 1003}}) {
    Bytes part = room(one_bit, r.size());
    kernels::quantize_signs(scale, view_of(x).part(r), view_of(sliced_error).part(r), bytes_view(part));
    kernels::dequantize(one_bit, bytes_view(part), {view_of(joined).part(r), false});
  }
  CHECK(joined == unpacked<double>(one_bit, packed, x.size()));
  CHECK(sliced_error == error);
  CHECK(kernels::sign_scale({}, {}) == 0);
}

TEST_CASE("with feedback nothing is lost over time, without it the same part every time") {
  const Extent n = 777, rounds = 50;
  for (const Codec& codec : all_codecs) {
    const std::vector<double> x = normal<double>(n, 14);
    std::vector<double> error(n), sent(n), without(n);
    Bytes packed = room(codec, n);
    for (Extent t = 0; t < rounds; ++t) {
      kernels::quantize_with_feedback(codec, view_of(x), view_of(error), bytes_view(packed));
      kernels::dequantize(codec, bytes_view(packed), {view_of(sent), true});
      kernels::quantize(codec, view_of(x), bytes_view(packed));
      kernels::dequantize(codec, bytes_view(packed), {view_of(without), true});
    }
    double owed = 0, drift = 0, plain_drift = 0;
    for (Extent i = 0; i < n; ++i) {
      owed = std::max(owed, std::abs(double(rounds) * x[i] - sent[i] - error[i]));
      drift = std::max(drift, std::abs(double(rounds) * x[i] - sent[i])),
      plain_drift = std::max(plain_drift, std::abs(double(rounds) * x[i] - without[i]));
    }
    CAPTURE(codec.name());
    CHECK(owed < 1e-11);
    CHECK(drift < plain_drift / 2);
  }
}

TEST_CASE("a reduction in two hops of packed slices is off by its two roundings at most") {
  struct World {
    Extent nodes, ranks_a_node;
  };
  const Extent n = 1003;
  for (const Codec& codec : by_block)
    for (const World world : {World{1, 2}, World{2, 2}, World{2, 4}}) {
      const Extent local = world.ranks_a_node, ranks = world.nodes * local;
      std::vector<std::vector<float>> gradient;
      for (Extent r = 0; r < ranks; ++r) gradient.push_back(normal(n, 20 + r));
      const auto cut = [&](Extent parts, Extent p) {
        const Range grains = share({0, (n + codec.grain() - 1) / codec.grain()}, parts, p);
        return Range{std::min(n, grains.begin * codec.grain()), std::min(n, grains.end * codec.grain())};
      };
      const auto scales = [&](const Bytes& packed, Extent size, Extent i) { return size ? double(scale_in(packed, i / codec.block)) : 0; };
      for (Extent slice = 0; slice < local; ++slice) {
        const Range r = cut(local, slice);
        std::vector<float> total(r.size());
        std::vector<double> exact(r.size()), bound(r.size(), 1e-5);
        std::vector<Bytes> second;
        for (Extent node = 0; node < world.nodes; ++node) {
          std::vector<Bytes> first;
          std::vector<View> views;
          for (Extent rank = node * local; rank < (node + 1) * local; ++rank) {
            first.push_back(room(codec, r.size()));
            kernels::quantize(codec, view_of(gradient[rank]).part(r), bytes_view(first.back()));
            for (Extent i = 0; i < r.size(); ++i) {
              exact[i] += double(gradient[rank][r.begin + i]);
              bound[i] += scales(first.back(), r.size(), i) / 2 * (1 + 1e-4);
            }
          }
          for (Bytes& one : first) views.push_back(bytes_view(one));
          std::vector<float> sum(r.size());
          kernels::dequantize_sum(codec, views, {view_of(sum), false});
          second.push_back(packed_by(codec, sum));
          for (Extent i = 0; i < r.size(); ++i) bound[i] += scales(second.back(), r.size(), i) / 2 * (1 + 1e-4);
        }
        std::vector<View> views;
        for (Bytes& one : second) views.push_back(bytes_view(one));
        kernels::dequantize_sum(codec, views, {view_of(total), false});
        Extent worse = 0;
        for (Extent i = 0; i < r.size(); ++i) worse += !(std::abs(double(total[i]) - exact[i]) <= bound[i]);
        CHECK(worse == 0);
      }
    }
}

TEST_CASE("a packed buffer of another size, or not of bytes, is refused: dsx-E340") {
  const std::vector<float> x = normal(100, 1);
  Bytes right = room(block_int8<64>, 100), few(right.size() - 1);
  std::vector<float> floats(27);
  const auto with = [&](View packed) { kernels::quantize(block_int8<64>, view_of(x), packed); };
  CHECK_NOTHROW(with(bytes_view(right)));
  CHECK_THROWS_WITH_AS(with(bytes_view(few)),
                       "dsx-E340: kernels::quantize of 100 elements as int8 by 64 takes 108 bytes (u8), but got 107 elements of u8", Error);
  CHECK_THROWS_WITH_AS(with(view_of(floats)), doctest::Contains("but got 27 elements of f32"), Error);
  CHECK_THROWS_WITH_AS(kernels::dequantize(block_int4<64>, bytes_view(right), {view_of(x), false}), doctest::Contains("dsx-E340"), Error);
  CHECK_THROWS_WITH_AS(kernels::quantize_signs(1, view_of(x), {}, bytes_view(right)), doctest::Contains("as 1 bit takes 17 bytes"), Error);
}

TEST_CASE("a codec that no kernel packs is refused: dsx-E341") {
  const std::vector<float> x = normal(100, 1);
  Bytes packed(100);
  CHECK_THROWS_WITH_AS(kernels::quantize({.bits = 2, .block = 32}, view_of(x), bytes_view(packed)),
                       doctest::Contains("dsx-E341: kernels::quantize got a codec of 2 bits in blocks of 32;"), Error);
  CHECK_THROWS_WITH_AS(kernels::dequantize({.bits = 1, .block = 0, .codes = Codes::asymmetric}, bytes_view(packed), {view_of(x), false}),
                       doctest::Contains("1 bits in blocks of 0, asymmetric"), Error);
}

TEST_CASE("errors of another size or element, and values that no kernel computes with, are refused") {
  const std::vector<bf16> x = normal<bf16>(100, 1);
  const std::vector<float> few = normal(99, 1);
  std::vector<int> whole(100);
  Bytes packed = room(block_int8<64>, 100);
  const View to = bytes_view(packed);
  CHECK_THROWS_WITH_AS(kernels::quantize_with_feedback(block_int8<64>, view_of(x), view_of(few), to), doctest::Contains("dsx-E301"), Error);
  CHECK_THROWS_WITH_AS(kernels::quantize_with_feedback(block_int8<64>, view_of(x), view_of(x), to),
                       doctest::Contains("dsx-E405: kernels::quantize_with_feedback keeps errors of bf16 values as f32, not as bf16"), Error);
  CHECK_THROWS_WITH_AS(kernels::quantize(block_int8<64>, view_of(whole), to), doctest::Contains("dsx-E405"), Error);
}
