// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Permute and combine on the host: tokens over threads; a token's rows belong to no other.
#include "elementwise_tables.hpp"
#include "permute_body.hpp"
#include "support.hpp"

#include <dsx/kernels/permute.hpp>

namespace dsx::kernels {
namespace {

void check(std::string_view kernel, const View& tokens_TC, const View& rows_NC, const View& places_Tk) {
  on_host(kernel, {tokens_TC, rows_NC, places_Tk}), same_element(kernel, tokens_TC, rows_NC);
  if (places_Tk.element != Element::i32) fail<405>("kernels::", kernel, " takes places as i32, not ", name_of(places_Tk.element));
  if (places_Tk.shape.rows != tokens_TC.shape.rows || rows_NC.shape.columns != tokens_TC.shape.columns || places_Tk.shape.columns > most_choices)
    fail<301>("kernels::", kernel, " got ", tokens_TC.shape.rows, " x ", tokens_TC.shape.columns, " tokens, ", rows_NC.shape.rows, " x ",
              rows_NC.shape.columns, " rows of experts and ", places_Tk.shape.rows, " x ", places_Tk.shape.columns, " places (at most ", most_choices,
              ")");
}
void check_weights(std::string_view kernel, const View& rows_NC, const View& weights_Tk, Shape shape) {
  if (weights_Tk.element != wide(rows_NC.element))
    fail<405>("kernels::", kernel, " weighs ", name_of(rows_NC.element), " rows by ", name_of(wide(rows_NC.element)), ", not by ",
              name_of(weights_Tk.element));
  if (weights_Tk.shape != shape)
    fail<301>("kernels::", kernel, " got ", weights_Tk.shape.rows, " x ", weights_Tk.shape.columns, " weights for ", shape.rows, " x ", shape.columns,
              " rows");
}

/// f(token, its places that aren't dropped, where each stands among the choices, their number), tokens over threads.
template <class F, class Done>
void for_tokens(const View& places_Tk, Extent columns, const F& f, const Done& done) {
  const Extent choices = places_Tk.shape.columns;
  in_ranges(places_Tk.shape.rows, (choices + 1) * columns, [&](Range tokens) {
    for (Extent t = tokens.begin; t < tokens.end; ++t) {
      const std::int32_t* all = places_Tk.pointer<std::int32_t>() + t * choices;
      Extent places[most_choices], choice[most_choices], count = 0;
      for (Extent i = 0; i < choices; ++i)
        if (all[i] >= 0) places[count] = Extent(all[i]), choice[count++] = i;
      f(t, places, choice, count);
    }
    done();  // once a thread
  });
}
template <class F>
void for_tokens(const View& places_Tk, Extent columns, const F& f) {
  for_tokens(places_Tk, columns, f, [] {});
}

/// Rows of more bytes than this leave the cache before an expert reads them.
constexpr Extent past_cache = 16_MiB;

}  // namespace

void expert_order(View chosen_Tk, View counts_E, const RowId* ids_T, View places_Tk, View begin, View ids_N, View live) {
  on_host("expert_order", {chosen_Tk, counts_E, places_Tk, begin, ids_N, live});
  same_shape("expert_order", chosen_Tk, places_Tk), same_element("expert_order", chosen_Tk, counts_E, places_Tk);
  const Extent experts = counts_E.size(), choices = chosen_Tk.shape.columns;
  if (begin.size() != experts + 1) fail<301>("kernels::expert_order got ", begin.size(), " beginnings for ", experts, " experts");
  const std::int32_t *counts = counts_E.pointer<std::int32_t>(), *chosen = chosen_Tk.pointer<std::int32_t>();
  std::int32_t* places = places_Tk.pointer<std::int32_t>();
  Extent* first = begin.pointer<Extent>();
  auto* ids = ids_N.pointer<RowId>();
  const bool numbers = experts > 0 && counts[0] >= 0;
  first[0] = 0;
  for (Extent e = 0; e < experts; ++e) first[e + 1] = first[e] + (numbers ? Extent(counts[e]) : 0);
  if (first[experts] > ids_N.size()) fail<401>("kernels::expert_order counts ", first[experts], " rows, and the plan holds ", ids_N.size());
  *live.pointer<std::int64_t>() = numbers ? std::int64_t(first[experts]) : std::int64_t(counts[0]);
  if (!numbers) {
    std::fill_n(places, places_Tk.size(), -1);
    return;
  }
  // The beginnings serve as cursors, and are put back.
  for (Extent t = 0; t < chosen_Tk.shape.rows; ++t)
    for (Extent i = 0; i < choices; ++i) {
      const std::int32_t e = chosen[t * choices + i];
      places[t * choices + i] = e < 0 ? -1 : std::int32_t(first[e]);
      if (e >= 0) ids[first[e]++] = ids_T[t] * choices + i;
    }
  for (Extent e = experts; e > 0; --e) first[e] = first[e - 1];
  first[0] = 0;
}

void permute(View x_TC, View places_Tk, Grad rows_NC) {
  check("permute", x_TC, rows_NC.view, places_Tk);
  const Extent columns = x_TC.shape.columns;
  dispatch(x_TC.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& add = pick<ConvertBody<T, T>>();
    const auto& body = pick<CopyBody>();
    const bool past = rows_NC.view.bytes() > past_cache;
    const Extent bytes = columns * sizeof(T);
    for_tokens(
        places_Tk, columns,
        [&](Extent t, const Extent* places, const Extent*, Extent count) {
          const T* from = x_TC.pointer<T>() + t * columns;
          for (Extent i = 0; i < count; ++i) {
            T* to = rows_NC.view.pointer<T>() + places[i] * columns;
            rows_NC.accumulate ? add.convert(from, to, columns, true)
                               : body.copy(reinterpret_cast<const std::byte*>(from), reinterpret_cast<std::byte*>(to), bytes, past);
          }
        },
        [&] {
          if (past) body.done();
        });
  });
}

void permute_pullback(View drows_NC, View places_Tk, Grad dx_TC) {
  check("permute_pullback", dx_TC.view, drows_NC, places_Tk);
  const Extent columns = drows_NC.shape.columns;
  dispatch(drows_NC.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<PermuteBody<T>>();
    for_tokens(places_Tk, columns, [&](Extent t, const Extent* places, const Extent*, Extent count) {
      const T* rows[most_choices];
      for (Extent i = 0; i < count; ++i) rows[i] = drows_NC.pointer<T>() + places[i] * columns;
      body.sum(rows, nullptr, count, columns, dx_TC.view.pointer<T>() + t * columns, dx_TC.accumulate);
    });
  });
}

void combine(View rows_NC, View weights_Tk, View places_Tk, View y_TC) {
  check("combine", y_TC, rows_NC, places_Tk), check_weights("combine", rows_NC, weights_Tk, places_Tk.shape);
  const Extent columns = rows_NC.shape.columns;
  dispatch(rows_NC.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<PermuteBody<T>>();
    for_tokens(places_Tk, columns, [&](Extent t, const Extent* places, const Extent* choice, Extent count) {
      const T* rows[most_choices];
      Wide<T> weights[most_choices];
      for (Extent i = 0; i < count; ++i) rows[i] = rows_NC.pointer<T>() + places[i] * columns, weights[i] = weights_Tk.at<Wide<T>>(t, choice[i]);
      body.sum(rows, weights, count, columns, y_TC.pointer<T>() + t * columns, false);
    });
  });
}

void combine_pullback(View rows_NC, View weights_Tk, View places_Tk, View dy_TC, Grad drows_NC, Grad dweights_Tk) {
  check("combine_pullback", dy_TC, rows_NC, places_Tk), check_weights("combine_pullback", rows_NC, weights_Tk, places_Tk.shape);
  same_shape("combine_pullback", rows_NC, drows_NC.view), check_weights("combine_pullback", drows_NC.view, dweights_Tk.view, places_Tk.shape);
  const Extent columns = rows_NC.shape.columns, choices = places_Tk.shape.columns;
  dispatch(rows_NC.element, [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const auto& body = pick<PermuteBody<T>>();
    for_tokens(places_Tk, columns, [&](Extent t, const Extent* places, const Extent* choice, Extent count) {
      W* dweights = dweights_Tk.view.pointer<W>() + t * choices;
      if (!dweights_Tk.accumulate) std::fill_n(dweights, choices, W(0));
      for (Extent i = 0; i < count; ++i)
        dweights[choice[i]] += body.pull(dy_TC.pointer<T>() + t * columns, rows_NC.pointer<T>() + places[i] * columns, weights_Tk.at<W>(t, choice[i]),
                                         columns, drows_NC.view.pointer<T>() + places[i] * columns, drows_NC.accumulate);
    });
  });
}

void weigh(View a_TC, View b_TC, View factors_T2, View y_TC) {
  on_host("weigh", {a_TC, b_TC, factors_T2, y_TC}), same_shape("weigh", a_TC, b_TC, y_TC), same_element("weigh", a_TC, b_TC, y_TC);
  check_weights("weigh", a_TC, factors_T2, {a_TC.shape.rows, 2});
  const Extent columns = a_TC.shape.columns;
  dispatch(a_TC.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<PermuteBody<T>>();
    in_ranges(a_TC.shape.rows, 3 * columns, [&](Range tokens) {
      for (Extent t = tokens.begin; t < tokens.end; ++t) {
        const T* rows[] = {a_TC.pointer<T>() + t * columns, b_TC.pointer<T>() + t * columns};
        body.sum(rows, factors_T2.pointer<Wide<T>>() + 2 * t, 2, columns, y_TC.pointer<T>() + t * columns, false);
      }
    });
  });
}

void weigh_pullback(View a_TC, View b_TC, View factors_T2, View dy_TC, Grad da_TC, Grad db_TC, Grad dfactors_T2) {
  on_host("weigh_pullback", {a_TC, b_TC, factors_T2, dy_TC, da_TC.view, db_TC.view, dfactors_T2.view});
  same_shape("weigh_pullback", a_TC, b_TC, dy_TC, da_TC.view, db_TC.view);
  same_element("weigh_pullback", a_TC, b_TC, dy_TC, da_TC.view, db_TC.view);
  check_weights("weigh_pullback", a_TC, factors_T2, {a_TC.shape.rows, 2});
  check_weights("weigh_pullback", a_TC, dfactors_T2.view, {a_TC.shape.rows, 2});
  const Extent columns = a_TC.shape.columns;
  dispatch(a_TC.element, [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const auto& body = pick<PermuteBody<T>>();
    in_ranges(a_TC.shape.rows, 5 * columns, [&](Range tokens) {
      for (Extent t = tokens.begin; t < tokens.end; ++t) {
        const W* factors = factors_T2.pointer<W>() + 2 * t;
        W* dfactors = dfactors_T2.view.pointer<W>() + 2 * t;
        const Extent at = t * columns;
        const W da = body.pull(dy_TC.pointer<T>() + at, a_TC.pointer<T>() + at, factors[0], columns, da_TC.view.pointer<T>() + at, da_TC.accumulate);
        const W db = body.pull(dy_TC.pointer<T>() + at, b_TC.pointer<T>() + at, factors[1], columns, db_TC.view.pointer<T>() + at, db_TC.accumulate);
        dfactors[0] = dfactors_T2.accumulate ? dfactors[0] + da : da, dfactors[1] = dfactors_T2.accumulate ? dfactors[1] + db : db;
      }
    });
  });
}

}  // namespace dsx::kernels
