// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Routers' tables on the host: rows over threads; seats that need an order, experts over threads.
#include "support.hpp"

#include <dsx/kernels/route.hpp>

#include <cmath>
#include <limits>

namespace dsx::kernels {
namespace {

/// f(W{}) for the wide element of a router's numbers.
template <class F>
void dispatch_wide(std::string_view kernel, const View& a, F&& f) {
  if (a.element == Element::f32) return f(float{});
  if (a.element == Element::f64) return f(double{});
  fail<405>("kernels::", kernel, " routes by f32 or f64 logits, not ", name_of(a.element));
}
void check_table(std::string_view kernel, const View& values_TE, const View& choices_Tk) {
  on_host(kernel, {values_TE, choices_Tk});
  if (choices_Tk.element != Element::i32) fail<405>("kernels::", kernel, " keeps choices as i32, not ", name_of(choices_Tk.element));
  if (choices_Tk.shape.rows != values_TE.shape.rows || choices_Tk.shape.columns > values_TE.shape.columns)
    fail<301>("kernels::", kernel, " got ", values_TE.shape.rows, " x ", values_TE.shape.columns, " numbers and ", choices_Tk.shape.rows, " x ",
              choices_Tk.shape.columns, " choices");
}
void check_loss(std::string_view kernel, const View& loss_1) {
  if (loss_1.size() != 1 || loss_1.element != Element::f64)
    fail<301>("kernels::", kernel, " writes one f64, not ", loss_1.size(), " ", name_of(loss_1.element));
}

template <class W>
void put(W& to, W value, bool accumulate) {
  to = accumulate ? to + value : value;
}

/// One over the sum of a row's seated probabilities; 0 where there is none.
template <class W>
W share(const W* row, const std::int32_t* seated, Extent choices) {
  W sum = 0;
  for (Extent i = 0; i < choices; ++i)
    if (seated[i] >= 0) sum += row[seated[i]];
  return sum > 0 ? 1 / sum : 0;
}

/// Ranges of a view's rows whose choices are counted together.
template <class F>
void for_parts(const BalanceOver& over, Extent rows, const F& f) {
  if (over.sequences.count() == 0) return f(Range{0, rows});
  for (Extent s = 0; s < over.sequences.count(); ++s) {
    const Range part = overlap(over.sequences[s], {over.first, over.first + rows});
    if (part.size() > 0) f(Range{part.begin - over.first, part.end - over.first});
  }
}
void count(View wanted_Tk, Range rows, Extent choices, View counts_E) {
  double* counts = counts_E.pointer<double>();
  std::fill_n(counts, counts_E.size(), 0.0);
  for (Extent t = rows.begin; t < rows.end; ++t)
    for (Extent i = 0; i < choices; ++i)
      if (const auto e = wanted_Tk.at<std::int32_t>(t, i); e >= 0) counts[e] += 1;
}
/// E / choices times the fraction of the rows whose first choices fell on each expert; of more rows than these, as counted before.
void count_fractions(View wanted_Tk, Range rows, const BalanceOver& over, View fractions_E) {
  const Extent experts = fractions_E.size();
  double* fractions = fractions_E.pointer<double>();
  const bool known = over.counts.size() > 0;
  if (known)
    std::copy_n(over.counts.pointer<double>(), experts, fractions);
  else
    count(wanted_Tk, rows, over.choices, fractions_E);
  const double total = known ? over.counts.pointer<double>()[experts] : double(rows.size()), each = double(experts) / double(over.choices) / total;
  for (Extent e = 0; e < experts; ++e) fractions[e] *= each;
}
void check_balance(std::string_view kernel, const View& probabilities_TE, const View& wanted_Tk, const BalanceOver& over, const View& fractions_E) {
  check_table(kernel, probabilities_TE, wanted_Tk);
  if (fractions_E.size() != probabilities_TE.shape.columns || fractions_E.element != Element::f64)
    fail<301>("kernels::", kernel, " needs ", probabilities_TE.shape.columns, " f64 of scratch, not ", fractions_E.size(), " ",
              name_of(fractions_E.element));
  if (over.choices == 0 || over.choices > wanted_Tk.shape.columns)
    fail<301>("kernels::", kernel, " counts ", over.choices, " of ", wanted_Tk.shape.columns, " choices");
  if (over.counts.size() != 0 && (over.counts.size() != fractions_E.size() + 1 || over.counts.element != Element::f64))
    fail<301>("kernels::", kernel, " got ", over.counts.size(), " ", name_of(over.counts.element), " of counts for ", fractions_E.size(), " experts");
}

/// The largest logit and the sum of exponentials relative to it.
template <class W>
std::pair<W, W> top_and_sum(const W* row, Extent experts) {
  const W top = *std::max_element(row, row + experts);
  W sum = 0;
  for (Extent e = 0; e < experts; ++e) sum += std::exp(row[e] - top);
  return {top, sum};
}

/// A token that wants a seat: the better one has more merit, then the earlier place.
struct Candidate {
  double merit;
  Extent place;  // t k + i
  bool operator<(const Candidate& other) const { return merit != other.merit ? merit > other.merit : place < other.place; }
};

}  // namespace

void softmax(View logits_TE, View probabilities_TE) {
  on_host("softmax", {logits_TE, probabilities_TE});
  same_shape("softmax", logits_TE, probabilities_TE), same_element("softmax", logits_TE, probabilities_TE);
  const Extent experts = logits_TE.shape.columns;
  dispatch_wide("softmax", logits_TE, [&](auto zero) {
    using W = decltype(zero);
    in_ranges(logits_TE.shape.rows, 16 * experts, [&](Range rows) {
      for (Extent t = rows.begin; t < rows.end; ++t) {
        const W* row = logits_TE.pointer<W>() + t * experts;
        W* p = probabilities_TE.pointer<W>() + t * experts;
        const W top = *std::max_element(row, row + experts);
        W sum = 0;
        for (Extent e = 0; e < experts; ++e) sum += p[e] = std::exp(row[e] - top);
        for (Extent e = 0; e < experts; ++e) p[e] /= sum;
      }
    });
  });
}

void softmax_pullback(View probabilities_TE, View dprobabilities_TE, Grad dlogits_TE) {
  on_host("softmax_pullback", {probabilities_TE, dprobabilities_TE, dlogits_TE.view});
  same_shape("softmax_pullback", probabilities_TE, dprobabilities_TE, dlogits_TE.view);
  same_element("softmax_pullback", probabilities_TE, dprobabilities_TE, dlogits_TE.view);
  const Extent experts = probabilities_TE.shape.columns;
  dispatch_wide("softmax_pullback", probabilities_TE, [&](auto zero) {
    using W = decltype(zero);
    in_ranges(probabilities_TE.shape.rows, 4 * experts, [&](Range rows) {
      for (Extent t = rows.begin; t < rows.end; ++t) {
        const W *p = probabilities_TE.pointer<W>() + t * experts, *dp = dprobabilities_TE.pointer<W>() + t * experts;
        W* to = dlogits_TE.view.pointer<W>() + t * experts;
        W dot = 0;
        for (Extent e = 0; e < experts; ++e) dot += p[e] * dp[e];
        for (Extent e = 0; e < experts; ++e) put(to[e], p[e] * (dp[e] - dot), dlogits_TE.accumulate);
      }
    });
  });
}

void best_experts(View logits_TE, View wanted_Tk) {
  check_table("best_experts", logits_TE, wanted_Tk);
  const Extent experts = logits_TE.shape.columns, choices = wanted_Tk.shape.columns;
  dispatch_wide("best_experts", logits_TE, [&](auto zero) {
    using W = decltype(zero);
    in_ranges(logits_TE.shape.rows, choices * experts, [&](Range rows) {
      for (Extent t = rows.begin; t < rows.end; ++t) {
        const W* row = logits_TE.pointer<W>() + t * experts;
        std::int32_t* wanted = wanted_Tk.pointer<std::int32_t>() + t * choices;
        bool number = true, finite = false;
        for (Extent e = 0; e < experts; ++e)
          number = number && row[e] < std::numeric_limits<W>::infinity(), finite = finite || row[e] > -std::numeric_limits<W>::infinity();
        if (!number || !finite) {
          std::fill_n(wanted, choices, -1);
          continue;
        }
        Extent have = 0;
        for (Extent e = 0; e < experts; ++e) {
          // Into the best so far, behind all that are as large: they have lower numbers.
          Extent at = have;
          while (at > 0 && row[wanted[at - 1]] < row[e]) --at;
          if (at == choices) continue;
          have = std::min(have + 1, choices);
          for (Extent i = have - 1; i > at; --i) wanted[i] = wanted[i - 1];
          wanted[at] = std::int32_t(e);
        }
      }
    });
  });
}

Extent seat_scratch(Shape wanted_Tk, Extent experts) {
  return wanted_Tk.size() * sizeof(Candidate) + (experts + 1) * sizeof(Extent) + alignof(Candidate);
}

void seat(View wanted_Tk, View probabilities_TE, const Seats& seats, const RowId* ids_T, View seated_Tk, View counts_E, View scratch) {
  check_table("seat", probabilities_TE, wanted_Tk), on_host("seat", {seated_Tk, counts_E, scratch});
  same_shape("seat", wanted_Tk, seated_Tk), same_element("seat", wanted_Tk, seated_Tk, counts_E);
  const Extent experts = probabilities_TE.shape.columns, choices = wanted_Tk.shape.columns, tokens = wanted_Tk.shape.rows;
  if (counts_E.size() != experts) fail<301>("kernels::seat got ", counts_E.size(), " counts for ", experts, " experts");
  const std::int32_t* wanted = wanted_Tk.pointer<std::int32_t>();
  std::int32_t *seated = seated_Tk.pointer<std::int32_t>(), *counts = counts_E.pointer<std::int32_t>();
  std::fill_n(counts, experts, 0);
  const bool in_order = seats.drop == Drop::by_position || seats.drop == Drop::by_choice;
  if (in_order) {
    const auto take = [&](Extent place) {
      const std::int32_t e = wanted[place];
      const bool free = e >= 0 && Extent(counts[e]) < seats.capacity;
      if (free) ++counts[e];
      seated[place] = free ? e : -1;
    };
    if (seats.drop == Drop::by_position)
      for (Extent place = 0; place < tokens * choices; ++place) take(place);
    else
      for (Extent i = 0; i < choices; ++i)
        for (Extent t = 0; t < tokens; ++t) take(t * choices + i);
  } else {
    if (scratch.bytes() < seat_scratch(wanted_Tk.shape, experts))
      fail<401>("kernels::seat needs ", seat_scratch(wanted_Tk.shape, experts), " bytes of scratch, not ", scratch.bytes());
    auto* begin =
        reinterpret_cast<Extent*>(scratch.pointer<std::byte>() +
                                  (alignof(Candidate) - reinterpret_cast<std::uintptr_t>(scratch.data) % alignof(Candidate)) % alignof(Candidate));
    auto* candidates = reinterpret_cast<Candidate*>(begin + experts + 1);
    for (Extent place = 0; place < tokens * choices; ++place)
      if (wanted[place] >= 0) ++counts[wanted[place]];
    begin[0] = 0;
    for (Extent e = 0; e < experts; ++e) begin[e + 1] = begin[e] + Extent(counts[e]), counts[e] = 0;
    for (Extent place = 0; place < tokens * choices; ++place) {
      seated[place] = -1;
      if (wanted[place] >= 0) candidates[begin[wanted[place]] + Extent(counts[wanted[place]]++)] = {0, place};
    }
    dispatch_wide("seat", probabilities_TE, [&](auto zero) {
      using W = decltype(zero);
      in_parallel(experts, 16 * tokens * choices, [&](Extent e) {
        Candidate *first = candidates + begin[e], *last = candidates + begin[e + 1];
        if (Extent(counts[e]) > seats.capacity) {
          for (Candidate* c = first; c != last; ++c)
            c->merit = seats.drop == Drop::by_probability ? double(probabilities_TE.at<W>(c->place / choices, e))
                                                          : double(uniform(seats.key, ids_T[c->place / choices], std::uint32_t(e)));
          std::nth_element(first, first + seats.capacity, last);
          counts[e] = std::int32_t(seats.capacity);
        }
        for (std::int32_t c = 0; c < counts[e]; ++c) seated[first[c].place] = std::int32_t(e);
      });
    });
  }
  for (Extent t = 0; t < tokens && choices > 0; ++t)
    if (wanted[t * choices] < 0) {
      counts[0] = -1 - std::int32_t(t);
      break;
    }
}

void choice_weights(View probabilities_TE, View seated_Tk, bool renormalised, View weights_Tk) {
  check_table("choice_weights", probabilities_TE, seated_Tk);
  same_shape("choice_weights", seated_Tk, weights_Tk), same_element("choice_weights", probabilities_TE, weights_Tk);
  const Extent experts = probabilities_TE.shape.columns, choices = seated_Tk.shape.columns;
  dispatch_wide("choice_weights", probabilities_TE, [&](auto zero) {
    using W = decltype(zero);
    for (Extent t = 0; t < seated_Tk.shape.rows; ++t) {
      const W* row = probabilities_TE.pointer<W>() + t * experts;
      const std::int32_t* seated = seated_Tk.pointer<std::int32_t>() + t * choices;
      const W factor = renormalised ? share(row, seated, choices) : W(1);
      for (Extent i = 0; i < choices; ++i) weights_Tk.at<W>(t, i) = seated[i] < 0 ? W(0) : row[seated[i]] * factor;
    }
  });
}

void choice_weights_pullback(View probabilities_TE, View seated_Tk, bool renormalised, View dweights_Tk, Grad dprobabilities_TE) {
  check_table("choice_weights_pullback", probabilities_TE, seated_Tk);
  same_shape("choice_weights_pullback", seated_Tk, dweights_Tk), same_shape("choice_weights_pullback", probabilities_TE, dprobabilities_TE.view);
  same_element("choice_weights_pullback", probabilities_TE, dweights_Tk, dprobabilities_TE.view);
  if (!dprobabilities_TE.accumulate && dprobabilities_TE.view.size()) std::memset(dprobabilities_TE.view.data, 0, dprobabilities_TE.view.bytes());
  const Extent experts = probabilities_TE.shape.columns, choices = seated_Tk.shape.columns;
  dispatch_wide("choice_weights_pullback", probabilities_TE, [&](auto zero) {
    using W = decltype(zero);
    for (Extent t = 0; t < seated_Tk.shape.rows; ++t) {
      const W *row = probabilities_TE.pointer<W>() + t * experts, *dweights = dweights_Tk.pointer<W>() + t * choices;
      const std::int32_t* seated = seated_Tk.pointer<std::int32_t>() + t * choices;
      W* to = dprobabilities_TE.view.pointer<W>() + t * experts;
      const W factor = renormalised ? share(row, seated, choices) : W(1);
      W common = 0;  // what a probability does to all weights by the sum that divides them
      if (renormalised)
        for (Extent i = 0; i < choices; ++i)
          if (seated[i] >= 0) common += dweights[i] * row[seated[i]] * factor;
      for (Extent i = 0; i < choices; ++i)
        if (seated[i] >= 0) to[seated[i]] += (dweights[i] - common) * factor;
    }
  });
}

void count_choices(View wanted_Tk, Extent choices, View counts) {
  on_host("count_choices", {wanted_Tk, counts});
  if (counts.size() < 2 || counts.element != Element::f64 || choices > wanted_Tk.shape.columns)
    fail<301>("kernels::count_choices counts ", choices, " of ", wanted_Tk.shape.columns, " choices in ", counts.size(), " ",
              name_of(counts.element));
  count(wanted_Tk, {0, wanted_Tk.shape.rows}, choices, counts.part({0, counts.size() - 1}));
  counts.pointer<double>()[counts.size() - 1] = double(wanted_Tk.shape.rows);
}

void balance_loss(View probabilities_TE, View wanted_Tk, const BalanceOver& over, View loss_1, View fractions_E) {
  check_balance("balance_loss", probabilities_TE, wanted_Tk, over, fractions_E), check_loss("balance_loss", loss_1);
  double loss = 0;
  dispatch_wide("balance_loss", probabilities_TE, [&](auto zero) {
    using W = decltype(zero);
    for_parts(over, probabilities_TE.shape.rows, [&](Range rows) {
      count_fractions(wanted_Tk, rows, over, fractions_E);
      for (Extent t = rows.begin; t < rows.end; ++t)
        for (Extent e = 0; e < fractions_E.size(); ++e) loss += double(probabilities_TE.at<W>(t, e)) * fractions_E.pointer<double>()[e];
    });
  });
  *loss_1.pointer<double>() = loss;
}

void balance_loss_pullback(View probabilities_TE, View wanted_Tk, const BalanceOver& over, double weight, Grad dprobabilities_TE, View fractions_E) {
  check_balance("balance_loss_pullback", probabilities_TE, wanted_Tk, over, fractions_E);
  same_shape("balance_loss_pullback", probabilities_TE, dprobabilities_TE.view);
  same_element("balance_loss_pullback", probabilities_TE, dprobabilities_TE.view);
  dispatch_wide("balance_loss_pullback", probabilities_TE, [&](auto zero) {
    using W = decltype(zero);
    for_parts(over, probabilities_TE.shape.rows, [&](Range rows) {
      count_fractions(wanted_Tk, rows, over, fractions_E);
      for (Extent t = rows.begin; t < rows.end; ++t)
        for (Extent e = 0; e < fractions_E.size(); ++e)
          put(dprobabilities_TE.view.at<W>(t, e), W(weight * fractions_E.pointer<double>()[e]), dprobabilities_TE.accumulate);
    });
  });
}

void z_loss(View logits_TE, View loss_1) {
  on_host("z_loss", {logits_TE, loss_1}), check_loss("z_loss", loss_1);
  double loss = 0;
  dispatch_wide("z_loss", logits_TE, [&](auto zero) {
    using W = decltype(zero);
    for (Extent t = 0; t < logits_TE.shape.rows; ++t) {
      const auto [top, sum] = top_and_sum(logits_TE.pointer<W>() + t * logits_TE.shape.columns, logits_TE.shape.columns);
      const double log_sum = double(top) + std::log(double(sum));
      loss += log_sum * log_sum;
    }
  });
  *loss_1.pointer<double>() = loss;
}

void z_loss_pullback(View logits_TE, double weight, Grad dlogits_TE) {
  on_host("z_loss_pullback", {logits_TE, dlogits_TE.view});
  same_shape("z_loss_pullback", logits_TE, dlogits_TE.view), same_element("z_loss_pullback", logits_TE, dlogits_TE.view);
  const Extent experts = logits_TE.shape.columns;
  dispatch_wide("z_loss_pullback", logits_TE, [&](auto zero) {
    using W = decltype(zero);
    in_ranges(logits_TE.shape.rows, 32 * experts, [&](Range rows) {
      for (Extent t = rows.begin; t < rows.end; ++t) {
        const W* row = logits_TE.pointer<W>() + t * experts;
        W* to = dlogits_TE.view.pointer<W>() + t * experts;
        const auto [top, sum] = top_and_sum(row, experts);
        const W factor = W(2 * weight * (double(top) + std::log(double(sum))) / double(sum));
        for (Extent e = 0; e < experts; ++e) put(to[e], factor * std::exp(row[e] - top), dlogits_TE.accumulate);
      }
    });
  });
}

}  // namespace dsx::kernels
