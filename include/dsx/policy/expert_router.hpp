// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides which experts each token goes to, and how much each of their answers weighs.
///
///     struct Alternate {                                              // a user's own: even tokens to one expert, odd ones to the other
///       void parts(auto&) const {}                                    // a router is a layer and may own weights
///       dsx::Routes operator()(dsx::Value<dsx::Common> x_RC) const;   // writes the tables, by operations on the tape
///     };
///     static_assert(dsx::ExpertRouter<Alternate>);
///
/// A router is no slot of a recipe: it is an argument of the layer whose experts it chooses from.
///
/// Laws (tests/laws/expert_router_laws.hpp). `experts`, `choices` and `capacity` follow from the router and the bound of x's rows alone,
/// so a dry run finds the plan of every real one. The tables have x's rows: every rank routes the tokens that it holds, and where the
/// tensor axis repeats them, alike on each of its ranks. A choice is an expert's number or `dropped`; no token chooses an expert twice;
/// what is dropped weighs 0; weights are finite. `counts` says how often each expert was chosen, drops left out, and never more than
/// `capacity`. The same rows in the same step of the same seed are routed alike, however often: recomputation asks again. Gradients
/// leave by `weights` and by what the router gave to add_loss; choices have none.
#pragma once

#include <dsx/pass/pass.hpp>

#include <cmath>
#include <concepts>
#include <limits>

namespace dsx {

/// Node ids and numbers: what leaves a router lies in the pass.
struct Routes {
  static constexpr Node none = std::numeric_limits<Node>::max();
  static constexpr std::int32_t dropped = -1;

  Extent experts = 1;   // in all, on all ranks of the expert axis together
  Extent choices = 1;   // of each token at most
  Extent capacity = 0;  // the most rows that one expert is given of this rank's tokens; without a limit the bound of x's rows
  double room = 0;      // for rows that arrive from other ranks, in even shares; 0: for all that may
  Node chosen = none;   // rows x choices, i32: an expert, or `dropped`
  Node weights = none;  // rows x choices, of the wide element: what each answer is multiplied with before the sum
  Node counts = none;   // 1 x experts, i32: rows for each expert; -1 - r at the front says that row r has no best expert (dsx-E345)
  // What it found, where it says so: for who watches it or judges it together with other layers' routers.
  Node probabilities = none;  // rows x experts, of the wide element
  Node wanted = none;         // rows x choices, i32: chosen before seats were given

  /// Whether there are tables. Without them every token goes, with weight 1, to the one expert there is: nothing is moved.
  bool permutes() const { return chosen != none; }
  /// The most rows of all experts together: what the plan of a grouped product holds.
  Extent bound(Extent rows) const { return std::min(rows * choices, experts * capacity); }
  /// The most that arrive where one of `ranks` equal parts of the experts lies, from as many ranks with so many rows each: a token may choose
  /// all of its experts there, unless the router gives them less room.
  Extent bound_arriving(Extent rows, Extent ranks) const {
    const Extent here = experts / ranks;
    const Extent all = ranks * std::min(rows * std::min(choices, here), here * capacity);
    return room > 0 ? std::min(all, Extent(std::ceil(room * double(bound(rows))))) : all;
  }
};
static_assert(std::is_trivially_copyable_v<Routes>);

/// What visits the parts of a layer, for concepts to try.
struct ArchetypeVisit {
  void operator()(std::string_view, const auto&) {}
};
template <class R>
concept ExpertRouter = requires(const R& router, Value<Common> x, ArchetypeVisit& visit) {
  { router(x) } -> std::same_as<Routes>;
  router.parts(visit);
};

/// The identity: one expert, which every token goes to.
struct Dense {
  void parts(auto&) const {}
  Routes operator()(Value<Common> x_RC) const { return {.capacity = x_RC.pass->rows(x_RC.node).bound}; }
};
static_assert(ExpertRouter<Dense>);

}  // namespace dsx

// dsx-policy: router dense Dense{}
