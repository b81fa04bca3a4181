// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
#include "comparison.hpp"

#include <dsx/kernels/attention.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

struct Case {
  Heads heads;
  std::vector<std::uint32_t> begin;
};
const Case cases[] = {
    {{1, 1, 1}, {0, 1}},           {{1, 1, 4}, {0, 0, 3, 3, 4}}, {{3, 3, 16}, {0, 17, 28, 34}}, {{2, 2, 64}, {0, 64, 129}}, {{4, 2, 8}, {0, 70, 75}},
    {{6, 1, 20, 18}, {0, 5, 140}}, {{1, 1, 33}, {0, 200}},       {{2, 1, 160}, {0, 41}},        {{1, 1, 300}, {0, 37}},     {{2, 2, 16}, {0}},
};

Extent rows_of(const Case& c) { return c.begin.back(); }

constexpr RandomKey stream{.seed = 0x1234567890ABCDEF, .step = 7, .unit = 3, .ordinal = 2};
/// Row numbers that need all 64 bits.
std::vector<RowId> ids_of(Extent rows) {
  std::vector<RowId> ids(rows);
  for (Extent r = 0; r < rows; ++r) ids[r] = r * 0x100000001ULL + 5;
  return ids;
}

}  // namespace

TEST_CASE("attention and its pullback agree with the reference on ragged sequences, with dropout and without") {
  for (const Case& c : cases)
    for (const double rate : {0.0, 0.3})
      for_gradients([&](auto zero, auto grad_zero) {
        using T = decltype(zero);
        using G = decltype(grad_zero);
        using W = Wide<T>;
        const Sequences sequences{c.begin};
        const Shape in{rows_of(c), c.heads.columns()}, out{rows_of(c), c.heads.query * c.heads.dim}, sums{rows_of(c), c.heads.query};
        const std::vector<RowId> ids = ids_of(in.rows);
        const kernels::AttentionDropout dropout{rate, stream, rate > 0 ? ids.data() : nullptr};
        Buffer<T> qkv{in, 1, 2}, dy{out, 2}, y = Buffer<T>::unset(out), expected = y;
        Buffer<W> log_sums = Buffer<W>::unset(sums), expected_sums = log_sums;
        kernels::attention(qkv.view(), c.heads, sequences, y.view(), log_sums.view(), dropout);
        reference::attention(qkv.begin(), c.heads, sequences, expected.begin(), expected_sums.begin(), dropout);
        CHECK(distance(y, expected) <= rounding<T>);
        CHECK(distance(log_sums, expected_sums) <= rounding<W>);
        for (const bool accumulate : {false, true}) {
          Buffer<G> dqkv = accumulate ? Buffer<G>{in, 3} : Buffer<G>::unset(in);
          std::vector<double> expected_dqkv(in.size());
          if (accumulate) expected_dqkv.assign(dqkv.data.begin(), dqkv.data.end());
          const Extent bytes = kernels::attention_scratch(in.rows, c.heads, element_of<T>);
          std::vector<std::byte> scratch(bytes + 64, std::byte{0xFF});
          kernels::attention_pullback(qkv.view(), c.heads, sequences, y.view(), log_sums.view(), dy.view(), dqkv.grad(accumulate),
                                      {scratch.data(), {bytes, 1}, Element::u8, Place::cpu, nullptr}, dropout);
          reference::attention_pullback(qkv.begin(), c.heads, sequences, dy.begin(), expected_dqkv.data(), dropout);
          CHECK(distance(dqkv.data, expected_dqkv) <= 2 * rounding<T>);
          bool untouched = true;
          for (Extent i = bytes; i < scratch.size(); ++i) untouched = untouched && scratch[i] == std::byte{0xFF};
          CHECK(untouched);
        }
      });
}

TEST_CASE("attention's pullback is its derivative, with dropout and without") {
  const Case c{{4, 2, 5}, {0, 7, 8, 13}};
  const std::vector<RowId> ids = ids_of(13);
  const Sequences sequences{c.begin};
  const Shape in{13, c.heads.columns()}, out{13, 20};
  Buffer<double> qkv{in, 1}, dy{out, 2}, y = Buffer<double>::unset(out), log_sums = Buffer<double>::unset({13, 4}), dqkv = Buffer<double>::unset(in);
  for (const kernels::AttentionDropout& dropout : {kernels::AttentionDropout{}, {0.4, stream, ids.data()}}) {
    const auto loss = [&] {
      kernels::attention(qkv.view(), c.heads, sequences, y.view(), log_sums.view(), dropout);
      return weighted(y.data, dy.data);
    };
    loss();
    kernels::attention_pullback(qkv.view(), c.heads, sequences, y.view(), log_sums.view(), dy.view(), dqkv.grad(false), {}, dropout);
    CHECK(distance(dqkv.data, central_differences(qkv.data, loss, 1e-3)) < 1e-9);
  }
}

TEST_CASE("dropout of probabilities keeps their mean, and none depends on where its row, head or sequence lies") {
  constexpr Extent rows = 200;
  const Heads heads{4, 4, 8}, later{2, 2, 8, 2};
  const std::vector<RowId> ids = ids_of(rows);
  // Queries of zero weigh their keys alike, so values of one give the share of probabilities that is kept.
  Buffer<double> ones{{rows, heads.columns()}, std::vector<double>(rows * heads.columns())}, y = Buffer<double>::unset({rows, 32}),
                                                                                             log_sums = Buffer<double>::unset({rows, 4});
  for (Extent r = 0; r < rows; ++r)
    for (Extent c = 64; c < 96; ++c) ones.data[r * 96 + c] = 1;
  const std::vector<std::uint32_t> one{0, rows};
  kernels::attention(ones.view(), heads, {one}, y.view(), log_sums.view(), {0.25, stream, ids.data()});
  double sum = 0;
  for (Extent h = 0; h < 4; ++h)
    for (Extent r = 0; r < rows; ++r) sum += double(r + 1) * y.data[r * 32 + h * 8];
  CHECK(std::abs(sum / (4.0 * rows * (rows + 1) / 2) - 1) < 0.01);

  // The last two heads alone, and the sequence behind another one.
  Buffer<double> qkv{{rows, heads.columns()}, 1};
  kernels::attention(qkv.view(), heads, {one}, y.view(), log_sums.view(), {0.25, stream, ids.data()});
  constexpr Extent before = 37;
  Buffer<double> part{{before + rows, later.columns()}, 2}, part_y = Buffer<double>::unset({before + rows, 16}),
                                                            part_sums = Buffer<double>::unset({before + rows, 2});
  for (Extent r = 0; r < rows; ++r)
    for (Extent group = 0; group < 3; ++group)
      for (Extent c = 0; c < 16; ++c) part.data[(before + r) * 48 + group * 16 + c] = qkv.data[r * 96 + group * 32 + 16 + c];
  std::vector<RowId> part_ids(before, 999);
  part_ids.insert(part_ids.end(), ids.begin(), ids.end());
  kernels::attention(part.view(), later, {std::vector<std::uint32_t>{0, before, before + rows}}, part_y.view(), part_sums.view(),
                     {0.25, stream, part_ids.data()});
  bool same = true;
  for (Extent r = 0; r < rows; ++r)
    for (Extent c = 0; c < 16; ++c) same = same && part_y.data[(before + r) * 16 + c] == y.data[r * 32 + 16 + c];
  CHECK(same);
}

TEST_CASE("a constant added to all keys has no gradient, and what rounding makes of it stays small") {
  // Values far from zero: y, and with it the mean that the softmax's pullback takes off, is rounded a hundred times as coarsely as they differ.
  constexpr Extent rows = 150, dim = 16;
  Buffer<float> qkv{{rows, 3 * dim}, 1}, dy{{rows, dim}, 2}, y = Buffer<float>::unset({rows, dim}), log_sums = Buffer<float>::unset({rows, 1}),
                                                             dqkv = Buffer<float>::unset(qkv.shape);
  for (Extent r = 0; r < rows; ++r)
    for (Extent d = 0; d < dim; ++d) qkv.data[r * 3 * dim + 2 * dim + d] += 100;
  const std::vector<std::uint32_t> begin{0, rows};
  kernels::attention(qkv.view(), {1, 1, dim}, {begin}, y.view(), log_sums.view());
  kernels::attention_pullback(qkv.view(), {1, 1, dim}, {begin}, y.view(), log_sums.view(), dy.view(), dqkv.grad(false), {});
  double most = 0, largest = 0;
  for (Extent d = dim; d < 2 * dim; ++d) {
    double sum = 0;
    for (Extent r = 0; r < rows; ++r)
      sum += double(dqkv.data[r * 3 * dim + d]), largest = std::max(largest, std::abs(double(dqkv.data[r * 3 * dim + d])));
    most = std::max(most, std::abs(sum));
  }
  MESSAGE("sums of at most " << most << " where a key's gradient is up to " << largest);
  CHECK(most < 2e-6 * largest);
}

TEST_CASE("large scores overflow nothing") {
  const Case c{{1, 1, 16}, {0, 100}};
  Buffer<float> qkv{{100, 48}, 1, 100}, y = Buffer<float>::unset({100, 16}), expected = y, log_sums = Buffer<float>::unset({100, 1}),
                                        expected_sums = log_sums;
  kernels::attention(qkv.view(), c.heads, {c.begin}, y.view(), log_sums.view());
  reference::attention(qkv.begin(), c.heads, {c.begin}, expected.begin(), expected_sums.begin());
  CHECK(distance(y, expected) < 1e-2);  // scores of thousands: a unit in their last place is some 1e-3 of a probability
  CHECK(distance(log_sums, expected_sums) < 1e-6);
}

TEST_CASE("attention and its pullback don't depend on threads") {
  const Case c{{4, 2, 32}, {0, 130, 140, 300}};
  Buffer<float> qkv{{300, c.heads.columns()}, 1}, dy{{300, 128}, 2};
  const std::vector<RowId> ids = ids_of(300);
  CHECK(same_on_any_threads([&] {
    const kernels::AttentionDropout dropout{0.1, stream, ids.data()};
    Buffer<float> y = Buffer<float>::unset({300, 128}), log_sums = Buffer<float>::unset({300, 4}), dqkv = Buffer<float>::unset(qkv.shape);
    kernels::attention(qkv.view(), c.heads, {c.begin}, y.view(), log_sums.view(), dropout);
    kernels::attention_pullback(qkv.view(), c.heads, {c.begin}, y.view(), log_sums.view(), dy.view(), dqkv.grad(false), {}, dropout);
    dqkv.data.insert(dqkv.data.end(), y.data.begin(), y.data.end());
    return dqkv.data;
  }));
}

TEST_CASE("attention over caches is attention over whole sequences") {
  for (const Heads heads : {Heads{3, 3, 16}, Heads{4, 2, 40}, Heads{2, 1, 64}})
    for_elements([&](auto zero) {
      using T = decltype(zero);
      const std::vector<std::uint32_t> whole{0, 90, 91, 155}, fresh{0, 1, 2, 68};  // new rows: the last one, the only one, the last 66 of 64 + 2
      const std::vector<Extent> counts{1, 1, 64};
      const Sequences sequences{whole};
      Buffer<T> qkv{{155, heads.columns()}, 1};
      Buffer<T> expected = Buffer<T>::unset({155, heads.query * heads.dim});
      Buffer<Wide<T>> log_sums = Buffer<Wide<T>>::unset({155, heads.query});
      kernels::attention(qkv.view(), heads, sequences, expected.view(), log_sums.view());

      const Extent width = heads.key_value * heads.dim;
      std::vector<std::uint32_t> begin{0};
      std::vector<Buffer<T>> keys, values;
      std::vector<T> rows, expected_rows;
      for (Extent s = 0; s < 3; ++s) {
        const Range range = sequences[s];
        Buffer<T> k = Buffer<T>::unset({range.size() + 7, width}), v = k;  // a cache has room for more
        for (Extent r = 0; r < range.size(); ++r)
          for (Extent d = 0; d < width; ++d) {
            const T* row = qkv.begin() + (range.begin + r) * heads.columns() + heads.query * heads.dim;
            k.data[r * width + d] = row[d], v.data[r * width + d] = row[width + d];
          }
        keys.push_back(k), values.push_back(v);
        begin.push_back(begin.back() + std::uint32_t(counts[s]));
        const Extent first = range.end - counts[s];
        rows.insert(rows.end(), qkv.data.begin() + std::ptrdiff_t(first * heads.columns()),
                    qkv.data.begin() + std::ptrdiff_t(range.end * heads.columns()));
        expected_rows.insert(expected_rows.end(), expected.data.begin() + std::ptrdiff_t(first * heads.query * heads.dim),
                             expected.data.begin() + std::ptrdiff_t(range.end * heads.query * heads.dim));
      }
      std::vector<kernels::KeyValues> caches;
      for (Extent s = 0; s < 3; ++s) caches.push_back({keys[s].view(), values[s].view(), sequences[s].size()});
      Buffer<T> fresh_rows{{begin.back(), heads.columns()}, rows}, y = Buffer<T>::unset({begin.back(), heads.query * heads.dim});
      kernels::attention_cached(fresh_rows.view(), heads, {begin}, caches, y.view());
      CHECK(distance(y.data, expected_rows) <= rounding<T>);
    });
}

TEST_CASE("attention refuses heads, elements and scratch that don't fit") {
  const std::vector<std::uint32_t> begin{0, 3};
  Buffer<float> qkv{{3, 12}, 1}, y{{3, 4}, 2}, log_sums{{3, 1}, 3};
  Buffer<double> wide{{3, 1}, 4};
  const auto number = [&](Heads heads, View sums) {
    try {
      kernels::attention(qkv.view(), heads, {begin}, y.view(), sums);
    } catch (const Error& error) {
      return error.number();
    }
    return 0;
  };
  CHECK(number({1, 1, 4}, log_sums.view()) == 0);
  CHECK(number({3, 2, 4}, log_sums.view()) == 301);
  CHECK(number({1, 1, 5}, log_sums.view()) == 301);
  CHECK(number({1, 1, 1000}, log_sums.view()) == 301);
  CHECK(number({1, 1, 4}, wide.view()) == 405);
  std::byte little[8];
  CHECK_THROWS_AS(kernels::attention_pullback(qkv.view(), {1, 1, 4}, {begin}, y.view(), log_sums.view(), y.view(), qkv.grad(false),
                                              {little, {8, 1}, Element::u8, Place::cpu, nullptr}),
                  Error);
  CHECK_THROWS_AS(kernels::attention_cached(qkv.view(), {1, 1, 4}, {begin}, {}, y.view()), Error);
}
