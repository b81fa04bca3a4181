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

/// A token's places that aren't dropped, and where each stands among the choices.
struct Places {
  Extent place[most_choices], choice[most_choices], count = 0;
  Places(const View& places_Tk, Extent token) {
    const Extent choices = places_Tk.shape.columns;
    const std::int32_t* const all = places_Tk.pointer<std::int32_t>() + token * choices;
    for (Extent i = 0; i < choices; ++i)
      if (all[i] >= 0) place[count] = Extent(all[i]), choice[count++] = i;
  }
  /// Where those rows begin.
  template <class T>
  void rows(const View& rows_NC, const T** begin) const {
    for (Extent i = 0; i < count; ++i) begin[i] = rows_NC.pointer<T>() + place[i] * rows_NC.shape.columns;
  }
};

/// f(token, its places), tokens over threads.
template <class F>
void for_tokens(const View& places_Tk, Extent columns, const F& f) {
  in_ranges(places_Tk.shape.rows, (places_Tk.shape.columns + 1) * columns, [&](Range tokens) {
    for (Extent t = tokens.begin; t < tokens.end; ++t) f(t, Places{places_Tk, t});
    pick<CopyBody>().done();
  });
}

/// What is larger has left the cache before it is read again.
constexpr Extent cached_bytes = 16_MiB;
/// Whether a buffer of rows is best written past the cache, and can be.
bool past_cache(const View& v) {
  return v.bytes() > cached_bytes && reinterpret_cast<std::uintptr_t>(v.data) % 64 == 0 && v.shape.columns * bytes_of(v.element) % 64 == 0;
}

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
    const bool past = past_cache(rows_NC.view);
    for_tokens(places_Tk, columns, [&](Extent t, const Places& places) {
      const T* const from = x_TC.pointer<T>() + t * columns;
      std::byte* to[most_choices];
      for (Extent i = 0; i < places.count; ++i) to[i] = reinterpret_cast<std::byte*>(rows_NC.view.pointer<T>() + places.place[i] * columns);
      if (!rows_NC.accumulate) return pick<CopyBody>().copy(reinterpret_cast<const std::byte*>(from), to, places.count, columns * sizeof(T), past);
      for (Extent i = 0; i < places.count; ++i) pick<ConvertBody<T, T>>().convert(from, reinterpret_cast<T*>(to[i]), columns, true);
    });
  });
}

namespace {

/// y = or += the sums of weights times rows over a token's places; without weights of rows.
void sum_of_places(const View& rows_NC, const View* weights_Tk, const View& places_Tk, Grad y_TC) {
  const Extent columns = rows_NC.shape.columns, tokens = places_Tk.shape.rows;
  dispatch(rows_NC.element, [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const auto& body = pick<PermuteBody<T>>();
    const Writing how{y_TC.accumulate, past_cache(y_TC.view)};
    for_tokens(places_Tk, columns, [&](Extent t, const Places& places) {
      const T *rows[most_choices], *next[most_choices];
      W weights[most_choices];
      places.rows(rows_NC, rows), std::copy_n(rows, places.count, next);
      if (how.past_cache && t + 1 < tokens) {
        const Places later{places_Tk, t + 1};
        for (Extent i = 0; i < std::min(places.count, later.count); ++i) next[i] = rows_NC.pointer<T>() + later.place[i] * columns;
      }
      for (Extent i = 0; weights_Tk && i < places.count; ++i) weights[i] = weights_Tk->at<W>(t, places.choice[i]);
      body.sum(rows, next, weights_Tk ? weights : nullptr, places.count, columns, y_TC.view.pointer<T>() + t * columns, how);
    });
  });
}

}  // namespace

void permute_pullback(View drows_NC, View places_Tk, Grad dx_TC) {
  check("permute_pullback", dx_TC.view, drows_NC, places_Tk);
  sum_of_places(drows_NC, nullptr, places_Tk, dx_TC);
}

void combine(View rows_NC, View weights_Tk, View places_Tk, View y_TC) {
  check("combine", y_TC, rows_NC, places_Tk), check_weights("combine", rows_NC, weights_Tk, places_Tk.shape);
  sum_of_places(rows_NC, &weights_Tk, places_Tk, {y_TC, false});
}

void combine_pullback(View rows_NC, View weights_Tk, View places_Tk, View dy_TC, Grad drows_NC, Grad dweights_Tk) {
  check("combine_pullback", dy_TC, rows_NC, places_Tk), check_weights("combine_pullback", rows_NC, weights_Tk, places_Tk.shape);
  same_shape("combine_pullback", rows_NC, drows_NC.view), check_weights("combine_pullback", drows_NC.view, dweights_Tk.view, places_Tk.shape);
  const Extent columns = rows_NC.shape.columns, choices = places_Tk.shape.columns, tokens = places_Tk.shape.rows;
  dispatch(rows_NC.element, [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const auto& body = pick<PermuteBody<T>>();
    const Writing how{drows_NC.accumulate, past_cache(drows_NC.view)};
    for_tokens(places_Tk, columns, [&](Extent t, const Places& places) {
      W* const dweights = dweights_Tk.view.pointer<W>() + t * choices;
      if (!dweights_Tk.accumulate) std::fill_n(dweights, choices, W(0));
      const T* rows[most_choices + 1];
      places.rows(rows_NC, rows);
      rows[places.count] = rows[0];
      if (how.past_cache && t + 1 < tokens) {
        const Places later{places_Tk, t + 1};
        if (later.count) rows[places.count] = rows_NC.pointer<T>() + later.place[0] * columns;
      }
      for (Extent i = 0; i < places.count; ++i)
        dweights[places.choice[i]] += body.pull(dy_TC.pointer<T>() + t * columns, rows[i], rows[i + 1], weights_Tk.at<W>(t, places.choice[i]),
                                                columns, drows_NC.view.pointer<T>() + places.place[i] * columns, how);
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
        body.sum(rows, rows, factors_T2.pointer<Wide<T>>() + 2 * t, 2, columns, y_TC.pointer<T>() + t * columns, {});
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
        const auto pull = [&](const View& x, W factor, Grad dx) {
          const T* const row = x.pointer<T>() + at;
          return body.pull(dy_TC.pointer<T>() + at, row, row, factor, columns, dx.view.pointer<T>() + at, {.accumulate = dx.accumulate});
        };
        const W da = pull(a_TC, factors[0], da_TC), db = pull(b_TC, factors[1], db_TC);
        dfactors[0] = dfactors_T2.accumulate ? dfactors[0] + da : da, dfactors[1] = dfactors_T2.accumulate ? dfactors[1] + db : db;
      }
    });
  });
}

}  // namespace dsx::kernels
