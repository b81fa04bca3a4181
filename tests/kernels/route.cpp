// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
/// Routers' tables against sorting each row and each expert's candidates; losses and weights against central differences.
#include "comparison.hpp"

#include <dsx/kernels/route.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

constexpr Drop drops[] = {Drop::by_position, Drop::by_choice, Drop::by_probability, Drop::at_random};

View ints(std::vector<std::int32_t>& v, Shape shape) { return {v.data(), shape, Element::i32, Place::cpu, nullptr}; }
std::vector<RowId> ids_of(Extent rows) {
  std::vector<RowId> ids(rows);
  for (Extent r = 0; r < rows; ++r) ids[r] = 1000 + 7 * r;
  return ids;
}

/// All tables of one batch of logits.
template <class W>
struct Tables {
  Buffer<W> probabilities, weights;
  std::vector<std::int32_t> wanted, seated, counts;

  Tables(Buffer<W>& logits, Extent choices, const kernels::Seats& seats, bool renormalised = true)
      : probabilities{Buffer<W>::unset(logits.shape)},
        weights{Buffer<W>::unset({logits.shape.rows, choices})},
        wanted(logits.shape.rows * choices, -7),
        seated(wanted),
        counts(logits.shape.columns, -7) {
    const Shape each{logits.shape.rows, choices};
    const Extent experts = logits.shape.columns;
    std::vector<std::byte> space(kernels::seat_scratch(each, experts));
    const auto ids = ids_of(each.rows);
    kernels::softmax(logits.view(), probabilities.view());
    kernels::best_experts(logits.view(), ints(wanted, each));
    kernels::seat(ints(wanted, each), probabilities.view(), seats, ids.data(), ints(seated, each), ints(counts, {1, experts}),
                  {space.data(), {space.size(), 1}, Element::u8, Place::cpu, nullptr});
    kernels::choice_weights(probabilities.view(), ints(seated, each), renormalised, weights.view());
  }
};

int number_of(const auto& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.number();
  }
  return 0;
}

}  // namespace

TEST_CASE("softmax, the best experts and their seats agree with the reference, whoever is dropped") {
  const auto check = [](auto zero) {
    using W = decltype(zero);
    for (const auto [tokens, experts, choices] : {std::array<Extent, 3>{0, 4, 2}, {1, 1, 1}, {13, 4, 2}, {64, 3, 3}, {300, 16, 5}, {257, 64, 8}})
      for (const Drop drop : drops)
        for (const Extent capacity : {Extent(1), tokens * choices / experts + 1, tokens}) {
          Buffer<W> logits{{tokens, experts}, 1, 3};
          for (Extent t = 0; t < tokens; t += 3)  // ties
            for (Extent e = 1; e < experts; ++e) logits.data[t * experts + e] = logits.data[t * experts + e - e % 2];
          const kernels::Seats seats{capacity, drop, {.seed = 3, .step = 5, .unit = 2, .ordinal = 1}};
          const Tables<W> made{logits, choices, seats};
          CHECK(distance(made.probabilities.data, reference::softmax(logits.begin(), tokens, experts)) <= rounding<W>);
          CHECK(made.wanted == reference::best_experts(logits.begin(), tokens, experts, choices));
          CHECK(made.seated == reference::seat(made.wanted, made.probabilities.begin(), experts, choices, seats, ids_of(tokens).data()));
          for (Extent e = 0; e < experts; ++e) CHECK(std::count(made.seated.begin(), made.seated.end(), std::int32_t(e)) == made.counts[e]);
        }
  };
  check(float{}), check(double{});
}

TEST_CASE("an expert's seats are taken as far as there is demand, whatever the mean of the logits") {
  for (const Drop drop : drops)
    for (const double shift : {0.0, -2.0, -4.0, 40.0}) {
      Buffer<float> logits{{512, 16}, 9, 1};
      for (float& l : logits.data) l += float(shift);
      const Tables<float> free{logits, 4, {512, drop}}, tight{logits, 4, {100, drop}};
      for (Extent e = 0; e < 16; ++e) CHECK(tight.counts[e] == std::min(free.counts[e], 100));
    }
}

TEST_CASE("equal logits go to the lower expert, and of equal tokens the later one loses its seat") {
  Buffer<float> logits{{3, 4}, std::vector<float>(12, 0.5F)};
  for (const Drop drop : {Drop::by_position, Drop::by_choice, Drop::by_probability}) {
    const Tables<float> made{logits, 2, {2, drop}};
    CHECK(made.wanted == std::vector<std::int32_t>{0, 1, 0, 1, 0, 1});
    CHECK(made.seated == std::vector<std::int32_t>{0, 1, 0, 1, -1, -1});
  }
}

TEST_CASE("first choices have their seats before any second choice") {
  // Token 0 wants experts 0 and 1, tokens 1 and 2 want 1 and 0.
  Buffer<float> logits{{3, 2}, std::vector<float>{2, 1, 1, 2, 1, 2}};
  CHECK(Tables<float>{logits, 2, {2, Drop::by_choice}}.seated == std::vector<std::int32_t>{0, -1, 1, 0, 1, -1});
  CHECK(Tables<float>{logits, 2, {2, Drop::by_position}}.seated == std::vector<std::int32_t>{0, 1, 1, 0, -1, -1});
}

TEST_CASE("lots depend on row ids and the stream, and every token has its chance") {
  Buffer<float> logits{{400, 2}, std::vector<float>(800, 1.0F)};
  const auto draw = [&](std::uint32_t step) { return Tables<float>{logits, 1, {100, Drop::at_random, {.seed = 1, .step = step}}}.seated; };
  CHECK(draw(1) == draw(1));
  CHECK(draw(1) != draw(2));
  Extent late = 0;
  const auto seated = draw(3);
  for (Extent t = 200; t < 400; ++t) late += seated[t] == 0;
  CHECK(late > 30);
  CHECK(late < 70);
}

TEST_CASE("a row whose logits are no distribution wants nothing, and the counts say which it is") {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const auto& bad : {std::vector<float>{NAN, 0, 1}, {0, 1, NAN}, {0, infinity, 0}, {-infinity, -infinity, -infinity}})
    for (const Drop drop : drops) {
      Buffer<float> logits{{5, 3}, 2};
      std::copy(bad.begin(), bad.end(), logits.data.begin() + 9);
      std::copy(bad.begin(), bad.end(), logits.data.begin() + 12);
      const Tables<float> made{logits, 2, {2, drop}};
      CHECK(std::vector<std::int32_t>(made.wanted.begin() + 6, made.wanted.end()) == std::vector<std::int32_t>{-1, -1, -1, -1});
      CHECK(made.counts[0] == -1 - 3);
      for (const std::int32_t e : made.seated) CHECK((e >= -1 && e < 3));
    }
  Buffer<float> closed{{1, 3}, std::vector<float>{0, -infinity, 1}};
  const Tables<float> made{closed, 3, {1, Drop::by_position}};
  CHECK(made.wanted == std::vector<std::int32_t>{2, 0, 1});
  CHECK(made.counts == std::vector<std::int32_t>{1, 1, 1});
  CHECK(made.weights.data[2] == 0);
}

TEST_CASE("weights, softmax and auxiliary losses have the gradients that central differences find") {
  const Extent tokens = 9, experts = 5, choices = 3;
  const std::vector<std::uint32_t> begin{0, 4, 9};
  Buffer<double> logits{{tokens, experts}, 1, 2}, dweights{{tokens, choices}, 2};
  const Tables<double> made{logits, choices, {3, Drop::by_position}};
  CHECK(std::count(made.seated.begin(), made.seated.end(), -1) > 3);
  std::vector<std::int32_t> wanted = made.wanted, seated = made.seated;
  const Shape each{tokens, choices};
  Buffer<double> fractions = Buffer<double>::unset({1, experts}), loss = Buffer<double>::unset({1, 1});
  for (const bool renormalised : {false, true})
    for (const kernels::BalanceOver& over : {kernels::BalanceOver{{}, 0, 1}, {{begin}, 0, 2}, {{begin}, 0, 3}}) {
      const auto total = [&] {
        Buffer<double> p = Buffer<double>::unset(logits.shape), w = Buffer<double>::unset(each);
        kernels::softmax(logits.view(), p.view());
        kernels::choice_weights(p.view(), ints(seated, each), renormalised, w.view());
        kernels::balance_loss(p.view(), ints(wanted, each), over, loss.view(), fractions.view());
        const double balance = loss.data[0];
        kernels::z_loss(logits.view(), loss.view());
        return weighted(w.data, dweights.data) + 0.25 * balance + 0.125 * loss.data[0];
      };
      Buffer<double> p = Buffer<double>::unset(logits.shape), dp = p, dlogits = p;
      kernels::softmax(logits.view(), p.view());
      for (const bool weights_first : {false, true}) {
        const auto weigh = [&](bool accumulate) {
          kernels::choice_weights_pullback(p.view(), ints(seated, each), renormalised, dweights.view(), dp.grad(accumulate));
        };
        const auto balance = [&](bool accumulate) {
          kernels::balance_loss_pullback(p.view(), ints(wanted, each), over, 0.25, dp.grad(accumulate), fractions.view());
        };
        weights_first ? (weigh(false), balance(true)) : (balance(false), weigh(true));
        kernels::z_loss_pullback(logits.view(), 0.125, dlogits.grad(false));
        kernels::softmax_pullback(p.view(), dp.view(), dlogits.grad(true));
        CHECK(distance(dlogits.data, central_differences(logits.data, total, 1e-3)) < 1e-9);
      }
    }
}

TEST_CASE("a router without preference has a balance loss of 1 a row, and parts of a batch are counted by themselves") {
  const Extent tokens = 12, experts = 4;
  Buffer<double> p{{tokens, experts}, std::vector<double>(tokens * experts, 0.25)}, fractions = Buffer<double>::unset({1, experts}),
                                                                                    loss = Buffer<double>::unset({1, 1});
  std::vector<std::int32_t> wanted(tokens * 2);
  for (Extent i = 0; i < wanted.size(); ++i) wanted[i] = std::int32_t(i % experts);
  const auto loss_of = [&](const kernels::BalanceOver& over) {
    return kernels::balance_loss(p.view(), ints(wanted, {tokens, 2}), over, loss.view(), fractions.view()), loss.data[0] / double(tokens);
  };
  const std::vector<std::uint32_t> begin{0, 2, 7, 7, 12}, later{0, 20, 25, 40};
  CHECK(std::abs(loss_of({{}, 0, 2}) - 1) < 1e-15);
  CHECK(std::abs(loss_of({{begin}, 0, 2}) - 1) < 1e-15);
  CHECK(std::abs(loss_of({{later}, 15, 1}) - 1) < 1e-15);
  // Of more rows: 30 of 40 choices of 20 fell on expert 1.
  Buffer<double> counts{{1, experts + 1}, {4, 30, 6, 0, 20}}, counted = Buffer<double>::unset({1, experts + 1});
  p.data[1] = 0.5;  // of the first row
  CHECK(std::abs(loss_of({{}, 0, 2, counts.view()}) - (1 + 0.25 * 4 * 30 / 40 / double(tokens))) < 1e-14);
  p.data[1] = 0.25;
  kernels::count_choices(ints(wanted, {tokens, 2}), 1, counted.view());
  CHECK(counted.data == std::vector<double>{6, 0, 6, 0, 12});
  // All tokens want expert 0, and prefer it: E times the probability.
  std::fill(wanted.begin(), wanted.end(), 0);
  for (Extent t = 0; t < tokens; ++t) p.data[t * experts] = 0.7;
  CHECK(std::abs(loss_of({{}, 0, 1}) - 2.8) < 1e-14);
}

TEST_CASE("routers' kernels don't depend on threads") {
  CHECK(same_on_any_threads([] {
    Buffer<float> logits{{3000, 32}, 4, 2};
    std::vector<float> all;
    for (const Drop drop : drops) {
      const Tables<float> made{logits, 4, {200, drop}};
      all.insert(all.end(), made.weights.data.begin(), made.weights.data.end());
      all.insert(all.end(), made.seated.begin(), made.seated.end());
    }
    return all;
  }));
}

TEST_CASE("routers' kernels refuse tables that don't fit") {
  Buffer<float> logits{{3, 4}, 1}, p = logits;
  Buffer<bf16> narrow{{3, 4}, 1};
  std::vector<std::int32_t> six(6), fifteen(15), four(4);
  const std::vector<RowId> ids = ids_of(3);
  CHECK(number_of([&] { kernels::best_experts(logits.view(), ints(fifteen, {3, 5})); }) == 301);
  CHECK(number_of([&] { kernels::best_experts(logits.view(), p.view()); }) == 405);
  CHECK(number_of([&] { kernels::best_experts(narrow.view(), ints(six, {3, 2})); }) == 405);
  CHECK(number_of([&] {
          kernels::seat(ints(six, {3, 2}), p.view(), {1, Drop::by_probability}, ids.data(), ints(six, {3, 2}), ints(four, {1, 4}), {});
        }) == 401);
  CHECK(number_of([&] { kernels::seat(ints(six, {3, 2}), p.view(), {1}, ids.data(), ints(six, {3, 2}), ints(six, {1, 6}), {}); }) == 301);
  CHECK(number_of([&] { kernels::z_loss(logits.view(), p.view()); }) == 301);
}
