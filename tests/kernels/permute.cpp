// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
/// The order of experts' rows, and permute and combine against plain loops and central differences; experts without rows among them.
#include "comparison.hpp"

#include <dsx/kernels/permute.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

using namespace dsx;
using namespace dsx::test;

namespace {

View ints(std::vector<std::int32_t>& v, Shape shape) { return {v.data(), shape, Element::i32, Place::cpu, nullptr}; }

struct Order {
  std::vector<std::int32_t> chosen, counts, places;
  std::vector<Extent> begin;
  std::vector<RowId> ids;
  std::int64_t live = 0;
  Shape each;

  Order(std::vector<std::int32_t> c, Extent choices, Extent experts) : chosen{std::move(c)}, counts(experts), each{chosen.size() / choices, choices} {
    for (const std::int32_t e : chosen)
      if (e >= 0) ++counts[e];
    sort(chosen.size());
  }
  void sort(Extent bound) {
    places.assign(chosen.size(), -9), begin.assign(counts.size() + 1, 77), ids.assign(bound, 77);
    std::vector<RowId> tokens(each.rows);
    std::iota(tokens.begin(), tokens.end(), 50);
    kernels::expert_order(ints(chosen, each), ints(counts, {1, counts.size()}), tokens.data(), ints(places, each),
                          {begin.data(), {1, begin.size()}, Element::u64, Place::cpu, nullptr},
                          {ids.data(), {ids.size(), 1}, Element::u64, Place::cpu, nullptr}, {&live, {1, 1}, Element::i64, Place::cpu, nullptr});
  }
  View table() { return ints(places, each); }
};

/// Two of `experts` for each token; a third of the choices dropped, and nobody wants experts 1 and the last.
Order scattered(Extent tokens, Extent choices, Extent experts) {
  std::vector<std::int32_t> chosen;
  for (Extent i = 0; i < tokens * choices; ++i) {
    const auto e = std::int32_t(philox({std::uint32_t(i), 1, 0, 0}, {1, 2})[0] % experts);
    chosen.push_back(i % 3 == 1 || e == 1 || e + 1 == std::int32_t(experts) ? -1 : e);
  }
  return {chosen, choices, experts};
}

int number_of(const auto& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.number();
  }
  return 0;
}

}  // namespace

TEST_CASE("rows lie expert by expert, and within one in the order of tokens") {
  const Order order{{2, 0, -1, 2, 0, 2}, 2, 4};
  CHECK(order.begin == std::vector<Extent>{0, 2, 2, 5, 5});
  CHECK(order.live == 5);
  CHECK(order.places == std::vector<std::int32_t>{2, 0, -1, 3, 1, 4});
  CHECK(order.ids == std::vector<RowId>{101, 104, 100, 103, 105, 77});
  const Order all_to_one{std::vector<std::int32_t>(7, 3), 1, 5};
  CHECK(all_to_one.begin == std::vector<Extent>{0, 0, 0, 0, 7, 7});
  CHECK(all_to_one.places == std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6});
  const Order nobody{std::vector<std::int32_t>(4, -1), 2, 3};
  CHECK(nobody.live == 0);
  CHECK(nobody.begin == std::vector<Extent>(4));
}

TEST_CASE("a count that tells of a row without numbers is handed on, and nothing has a place") {
  Order order{{2, 0, 1, 2}, 2, 3};
  order.counts[0] = -2;
  order.sort(4);
  CHECK(order.live == -2);
  CHECK(order.places == std::vector<std::int32_t>(4, -1));
  CHECK(order.begin == std::vector<Extent>(4));
  order.counts[0] = 1;
  CHECK(number_of([&] { order.sort(3); }) == 401);
}

TEST_CASE("permute, combine and their pullbacks agree with plain loops") {
  for_elements([](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    for (const auto [tokens, choices, experts, columns] :
         {std::array<Extent, 4>{1, 1, 3, 5}, {7, 2, 4, 33}, {64, 3, 8, 130}, {5, 64, 70, 1}, {0, 2, 3, 4}})
      for (const bool accumulate : {false, true}) {
        Order order = scattered(tokens, choices, experts);
        const Extent rows = Extent(order.live);
        const auto gradient = [&](auto unit, Shape s) {
          using G = decltype(unit);
          return accumulate ? Buffer<G>{s, 5} : Buffer<G>::unset(s);
        };
        const auto kept = [&](auto& to, double value) { to = std::remove_reference_t<decltype(to)>(W(accumulate ? double(to) + value : value)); };
        Buffer<T> x{{tokens, columns}, 1}, permuted = gradient(T{}, {rows, columns}), expected = permuted;
        kernels::permute(x.view(), order.table(), permuted.grad(accumulate));
        Buffer<T> y = Buffer<T>::unset(x.shape), expected_y = y, dy{x.shape, 3}, dx = gradient(T{}, x.shape), expected_dx = dx;
        Buffer<W> weights{{tokens, choices}, 2}, dweights = gradient(W{}, {tokens, choices}), expected_dweights = dweights;
        Buffer<T> answers{{rows, columns}, 4}, danswers = gradient(T{}, answers.shape), expected_danswers = danswers;
        kernels::combine(answers.view(), weights.view(), order.table(), y.view());
        reference::combine(answers.begin(), weights.begin(), order.places.data(), tokens, choices, columns, expected_y.begin());
        kernels::permute_pullback(answers.view(), order.table(), dx.grad(accumulate));
        kernels::combine_pullback(answers.view(), weights.view(), order.table(), dy.view(), danswers.grad(accumulate), dweights.grad(accumulate));
        for (Extent t = 0; t < tokens; ++t) {
          for (Extent c = 0; c < columns; ++c) {
            double sum = 0;
            for (Extent i = 0; i < choices; ++i)
              if (const auto place = order.places[t * choices + i]; place >= 0) {
                kept(expected.data[Extent(place) * columns + c], double(x.data[t * columns + c]));
                kept(expected_danswers.data[Extent(place) * columns + c], double(weights.data[t * choices + i]) * double(dy.data[t * columns + c]));
                sum += double(answers.data[Extent(place) * columns + c]);
              }
            kept(expected_dx.data[t * columns + c], sum);
          }
          for (Extent i = 0; i < choices; ++i) {
            double dot = 0;
            if (const auto place = order.places[t * choices + i]; place >= 0)
              for (Extent c = 0; c < columns; ++c) dot += double(answers.data[Extent(place) * columns + c]) * double(dy.data[t * columns + c]);
            kept(expected_dweights.data[t * choices + i], dot);
          }
        }
        CHECK(distance(permuted, expected) <= (accumulate ? rounding<T> : 0));
        CHECK(distance(y, expected_y) <= rounding<T>);
        CHECK(distance(dx, expected_dx) <= rounding<T>);
        CHECK(distance(danswers, expected_danswers) <= rounding<T>);
        CHECK(distance(dweights, expected_dweights) <= rounding<W>);
      }
  });
}

TEST_CASE("two values weighed by row agree with the loop, and their pullback with central differences") {
  Buffer<double> a{{5, 7}, 1}, b{{5, 7}, 2}, factors{{5, 2}, 3}, dy{{5, 7}, 4}, y = Buffer<double>::unset({5, 7}), da = y, db = y,
                                                                                dfactors = Buffer<double>::unset({5, 2});
  const auto loss = [&] { return kernels::weigh(a.view(), b.view(), factors.view(), y.view()), weighted(y.data, dy.data); };
  loss();
  CHECK(std::abs(y.data[9] - factors.data[2] * a.data[9] - factors.data[3] * b.data[9]) < 1e-15);
  for (const bool accumulate : {false, true}) {
    kernels::weigh_pullback(a.view(), b.view(), factors.view(), dy.view(), da.grad(accumulate), db.grad(accumulate), dfactors.grad(accumulate));
    for (auto [gradient, at] : {std::pair{&da, &a}, {&db, &b}, {&dfactors, &factors}}) {
      std::vector<double> found = gradient->data;
      for (double& g : found) g /= accumulate ? 2 : 1;
      CHECK(distance(found, central_differences(at->data, loss, 1e-2)) < 1e-9);
    }
  }
}

TEST_CASE("permute and combine don't depend on threads") {
  CHECK(same_on_any_threads([] {
    Order order = scattered(900, 3, 8);
    Buffer<float> x{{900, 96}, 1}, rows = Buffer<float>::unset({Extent(order.live), 96}), y = x, weights{{900, 3}, 2}, drows = rows,
                                   dweights = weights;
    kernels::permute(x.view(), order.table(), rows.grad(false));
    kernels::combine(rows.view(), weights.view(), order.table(), y.view());
    kernels::combine_pullback(rows.view(), weights.view(), order.table(), x.view(), drows.grad(false), dweights.grad(false));
    y.data.insert(y.data.end(), dweights.data.begin(), dweights.data.end());
    return y.data;
  }));
}

TEST_CASE("rows larger than the cache are written past it, and are the same bits") {
  for_elements([](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    constexpr Extent line = 64 / sizeof(T), columns = 16 * line, choices = 3, threshold = 16_MiB / (columns * sizeof(T));
    /// Rows that begin `shift` elements behind a line; guards before and after them.
    struct Shifted {
      std::vector<T> memory;
      Shape shape;
      Extent first;
      Shifted(Shape s, Extent shift, std::uint64_t seed) : memory(s.size() + 4 * line, T(W(7))), shape{s} {
        const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
        first = line + (64 - address % 64) % 64 / sizeof(T) + shift;
        for (Extent i = 0; i < s.size(); ++i) memory[first + i] = T(W(float((i * 2654435761U + seed) % 1021) / 512 - 1));
      }
      View view() { return {memory.data() + first, shape, element_of<T>, Place::cpu, nullptr}; }
      std::vector<T> rows() const { return {memory.begin() + std::ptrdiff_t(first), memory.begin() + std::ptrdiff_t(first + shape.size())}; }
      bool guarded() const {
        const auto is_guard = [](T x) { return W(x) == W(7); };
        return std::all_of(memory.begin(), memory.begin() + std::ptrdiff_t(first), is_guard) &&
               std::all_of(memory.begin() + std::ptrdiff_t(first + shape.size()), memory.end(), is_guard);
      }
    };
    struct Results {
      std::vector<T> permuted, y, dx, drows;
      std::vector<W> dweights;
    };
    const auto run = [&](Extent tokens, Extent width, Extent shift, bool accumulate, Order& order) {
      const Extent rows = Extent(order.live);
      Shifted x{{tokens, width}, shift, 1}, permuted{{rows, width}, shift, 2}, y{x.shape, shift, 3}, dx{x.shape, shift, 4},
          drows{permuted.shape, shift, 5};
      Buffer<W> weights{{tokens, choices}, 6}, dweights{{tokens, choices}, 7};
      kernels::permute(x.view(), order.table(), {permuted.view(), accumulate});
      kernels::combine(permuted.view(), weights.view(), order.table(), y.view());
      kernels::permute_pullback(permuted.view(), order.table(), {dx.view(), accumulate});
      kernels::combine_pullback(permuted.view(), weights.view(), order.table(), y.view(), {drows.view(), accumulate}, dweights.grad(accumulate));
      for (const Shifted* s : {&permuted, &y, &dx, &drows}) CHECK(s->guarded());
      return Results{permuted.rows(), y.rows(), dx.rows(), drows.rows(), std::move(dweights.data)};
    };
    const auto same = [](const auto& a, const auto& b) {
      return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
    };
    // The results are as large as the threshold, and a row larger; then rows that no line begins with, or that aren't whole lines.
    for (const Extent tokens : {threshold, threshold + 1})
      for (const bool accumulate : {false, true}) {
        Order order = scattered(tokens, choices, 5);
        const Results cached = run(tokens, columns, 1, accumulate, order);
        for (const Extent shift : {Extent(0), line / 2}) {
          const Results past = run(tokens, columns, shift, accumulate, order);
          CHECK(same(past.permuted, cached.permuted));
          CHECK(same(past.y, cached.y));
          CHECK(same(past.dx, cached.dx));
          CHECK(same(past.drows, cached.drows));
          CHECK(same(past.dweights, cached.dweights));
        }
      }
    Order order = scattered(threshold + 1, choices, 5);
    for (const Extent width : {columns + 1, columns + line / 2}) {
      const Results odd = run(threshold + 1, width, 0, false, order), again = run(threshold + 1, width, 1, false, order);
      CHECK(same(odd.permuted, again.permuted));
      CHECK(same(odd.y, again.y));
      CHECK(same(odd.drows, again.drows));
    }
  });
}

TEST_CASE("permute and combine refuse tables and rows that don't fit") {
  Order order{{0, 1, 1, 0}, 2, 2};
  Buffer<float> x{{2, 8}, 1}, rows{{4, 8}, 2}, other{{4, 7}, 3}, weights{{2, 2}, 4}, more{{2, 3}, 5};
  Buffer<double> wide_weights{{2, 2}, 6};
  CHECK(number_of([&] { kernels::permute(x.view(), order.table(), other.grad(false)); }) == 301);
  CHECK(number_of([&] { kernels::permute(x.view(), weights.view(), rows.grad(false)); }) == 405);
  CHECK(number_of([&] { kernels::combine(rows.view(), more.view(), order.table(), x.view()); }) == 301);
  CHECK(number_of([&] { kernels::combine(rows.view(), wide_weights.view(), order.table(), x.view()); }) == 405);
  CHECK(number_of([&] { kernels::combine(rows.view(), weights.view(), order.table(), rows.view()); }) == 301);
}
