// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// All pairs of policies, from the headers' lines `// dsx-policy:` alone: which are refused, and a covering array of the others on meshes
/// that give each of them something to do.
///
///     const matrix::Matrix& all = matrix::whole();
///     for (const auto& row : all.cells.rows) CHECK(matrix::judge(matrix::setup_of(row)) == "");
#pragma once

#include "covering.hpp"

#include <policies.hpp>  // written by cmake/list_policies.cmake

#include <dsx/comm/mesh_text.hpp>
#include <dsx/optim/any_optimizer.hpp>
#include <dsx/policy/recipe.hpp>

#include <map>
#include <optional>
#include <variant>

namespace dsx {
class Session;
}

namespace matrix {

using namespace dsx;
using toy::Covering, toy::Pair, toy::unset;
using Row = std::vector<Extent>;  // a choice of each slot

inline constexpr Extent width = 12;  // of the model (toy_gpt2.hpp)

template <class List>
struct AlternativesOf;
template <class... P>
struct AlternativesOf<std::tuple<listed::Listed<P>...>> {
  using type = std::variant<P...>;
};
/// Any of the listed routers. A router may own weights, so this holds one instead of calling it.
struct ListedRouter {
  AlternativesOf<decltype(listed::routers(width))>::type chosen{};
  bool dense() const { return std::holds_alternative<Dense>(chosen); }
  Extent experts() const {
    return std::visit(
        [](const auto& r) -> Extent {
          if constexpr (requires { r.experts; })
            return r.experts;
          else
            return 1;
        },
        chosen);
  }
  void parts(auto& visit) const {
    std::visit([&](const auto& r) { r.parts(visit); }, chosen);
  }
  Routes operator()(Value<Common> x_RC) const {
    return std::visit([&](const auto& r) { return r(x_RC); }, chosen);
  }
};

/// What a policy rounds more than double does: elements everywhere, or what is packed (on the wire, in the optimizer's state).
enum class Rounding { none, element, packed };

/// What a cell trains with.
struct Setup {
  AnyPolicies policies{};
  ListedRouter router{};
  AnyOptimizer optimizer = AdamW{};
  Degrees degrees{};
  std::string name{}, router_name{}, optimizer_name{};
  Rounding rounding = Rounding::none;
  AnyRecipe recipe() const { return policies; }
  AnyPrecision precision() const { return std::get<AnyPrecision>(policies); }
};

struct Choice {
  std::string name, spelling, header;
  std::function<void(Setup&)> take;
  Rounding rounding = Rounding::none;
  bool identity = false;
  PolicyTag tag{};  // of a recipe's policy
};
struct Factor {
  std::string name;
  std::vector<Choice> choices{};
  Extent identity() const {
    return Extent(std::find_if(choices.begin(), choices.end(), [](const Choice& c) { return c.identity; }) - choices.begin());
  }
};

/// Each has two data ranks at least, and near ones, for a policy that cuts something to cut it.
inline constexpr const char* meshes[] = {"data=2,inner=2",
                                         "data=4,inner=2",
                                         "data=2,inner=2,tensor=2",
                                         "data=2,inner=2,tensor=2,tokens=split",
                                         "data=4,inner=2,tensor=2",
                                         "data=8,inner=4",
                                         "data=4,inner=2,expert=2",
                                         "data=2,inner=2,pipe=2",
                                         "data=2,inner=2,pipe=4",
                                         "data=4,inner=2,pipe=2",
                                         "data=2,inner=2,tensor=2,pipe=2,tokens=split",
                                         "data=4,inner=2,pipe=2,expert=2"};

template <class P>
Rounding rounding_of(const P& policy) {
  if constexpr (Quantizer<P>)
    return std::same_as<P, FullPrecision> ? Rounding::none : Rounding::packed;
  else if constexpr (PrecisionPolicy<P>)
    return policy.elements() == Fp64{}.elements() ? Rounding::none : Rounding::element;
  else if constexpr (requires { policy.exact_steps(); })  // an optimizer whose sums are its own
    return Rounding::packed;
  else
    return Rounding::none;
}

/// The recipe's slots in its order, then router, optimizer and mesh.
inline const std::vector<Factor>& slots() {
  static const std::vector<Factor> all = [] {
    std::vector<Factor> slots;
    const auto add_slots = [&]<class... S>(SlotList<S...>) { (slots.push_back({S::name}), ...); };
    add_slots(Slots{});
    for (const char* name : {"router", "optimizer", "mesh"}) slots.push_back({name});
    const auto add = [&](const auto& l, auto take, bool identity, PolicyTag tag) {
      const auto slot = std::find_if(slots.begin(), slots.end(), [&](const Factor& s) { return s.name == l.slot; });
      slot->choices.push_back({l.name, l.spelling, l.header, take, rounding_of(l.policy), identity, tag});
    };
    const auto recipe = [&]<class P>(const listed::Listed<P>& l) {
      using Found = Identity<typename P::Slot>;
      add(l, [p = l.policy](Setup& s) { std::get<typename Found::any>(s.policies) = p; }, std::same_as<P, typename Found::type>, tag_of<P>());
    };
    const auto router = [&]<class P>(const listed::Listed<P>& l) {
      add(l, [l](Setup& s) { s.router.chosen = l.policy, s.router_name = l.name; }, std::same_as<P, Dense>, {});
    };
    const auto optimizer = [&]<class P>(const listed::Listed<P>& l) {
      add(l, [l](Setup& s) { s.optimizer = l.policy, s.optimizer_name = l.name; }, std::same_as<P, AdamW>, {});
    };
    std::apply([&](const auto&... l) { (recipe(l), ...); }, listed::recipe_policies());
    std::apply([&](const auto&... l) { (router(l), ...); }, listed::routers(width));
    std::apply([&](const auto&... l) { (optimizer(l), ...); }, listed::optimizers());
    for (const char* text : meshes)
      slots.back().choices.push_back({text, "", "", [text](Setup& s) { s.degrees = parse_degrees(text); }, Rounding::none, text == meshes[0]});
    return slots;
  }();
  return all;
}
inline Extent slot_named(std::string_view name) {
  return Extent(std::find_if(slots().begin(), slots().end(), [&](const Factor& s) { return s.name == name; }) - slots().begin());
}
inline Row identities() {
  Row row;
  for (const Factor& s : slots()) row.push_back(s.identity());
  return row;
}
inline Setup setup_of(const Row& row) {
  Setup setup;
  for (Extent s = 0; s < row.size(); ++s) {
    const Choice& c = slots()[s].choices[row[s]];
    c.take(setup);
    setup.rounding = std::max(setup.rounding, c.rounding);
    if (!c.identity || s + 1 == row.size()) setup.name += concat(setup.name.empty() ? "" : s + 1 == row.size() ? " on " : "+", c.name);
  }
  return setup;
}
inline std::string name_of(Extent slot, Extent choice) { return slots()[slot].choices[choice].name; }

struct Refusal {
  int number = 0;
  std::string text{};
};
/// Why a trainer of this setup can't be made, of a dry one: errors of recipes, shapes and meshes. In matrix_cells.cpp.
std::optional<Refusal> refusal_of(const Setup&);
/// A run on thread ranks against one rank; what is wrong with it, or nothing. In matrix_cells.cpp.
std::string judge(const Setup&);
/// This process's part of one; only the root judges.
std::string judge(const Setup&, Session&);

/// Recipes alone: what `excludes` says.
inline std::optional<Refusal> refusal_of_recipe(const Setup& s) {
  try {
    (void)s.recipe();
  } catch (const Error& e) {
    return Refusal{e.number(), e.what()};
  }
  return {};
}

struct Matrix {
  std::map<Pair, Refusal> refused{};  // policies and meshes
  Covering cells{};
  Extent exact = 0;  // of the cells, the first ones: they cover all pairs of exact policies in double
};

/// `refusal(setup)` is asked of each pair of policies among identities, on a mesh that suits them.
inline Matrix matrix_by(std::optional<Refusal> (*refusal)(const Setup&)) {
  const auto& all = slots();
  const Extent schedule = slot_named("pipeline schedule"), mesh = all.size() - 1;
  const Extent single = all[schedule].identity();
  Matrix m;
  Row choices;
  for (const Factor& s : all) choices.push_back(s.choices.size());
  const auto pipe_of = [&](Extent choice) { return parse_degrees(all[mesh].choices[choice].name).pipe; };
  const Extent piped = [&] {
    Extent choice = 0;
    while (pipe_of(choice) == 1) ++choice;
    return choice;
  }();
  const auto refuses = [&](Extent a, Extent i, Extent b, Extent j) { return m.refused.contains(a < b ? Pair{a, i, b, j} : Pair{b, j, a, i}); };
  const auto probe = [&](const Pair& p) {
    Row row = identities();
    row[p.a] = p.i, row[p.b] = p.j;
    if (p.b != mesh)
      row[mesh] = row[schedule] == single ? all[mesh].identity() : piped;
    else if (p.a != schedule && pipe_of(p.j) > 1)
      for (Extent s = 0; s < choices[schedule]; ++s)  // pairs of policies are known by now
        if (s != single && !refuses(p.a, p.i, schedule, s)) row[schedule] = s;
    if (const auto found = refusal(setup_of(row))) m.refused.emplace(p, *found);
  };
  for (Extent a = 0; a < all.size(); ++a)
    for (Extent b = a + 1; b < all.size(); ++b)
      for (Extent i = 0; i < choices[a]; ++i)
        for (Extent j = 0; j < choices[b]; ++j) probe({a, i, b, j});
  const auto allowed = [&](const Row& row, bool exact_only) {
    for (Extent a = 0; a < row.size(); ++a) {
      if (row[a] == unset) continue;
      if (exact_only && all[a].choices[row[a]].rounding != Rounding::none) return false;
      for (Extent b = a + 1; b < row.size(); ++b)
        if (row[b] != unset && m.refused.contains({a, row[a], b, row[b]})) return false;
    }
    // A schedule on one stage, or none on several, has nothing to do.
    return row[schedule] == unset || row[mesh] == unset || (row[schedule] == single) == (pipe_of(row[mesh]) == 1);
  };
  const Covering exact = toy::covering_array(choices, [&](const Row& row) { return allowed(row, true); });
  m.exact = exact.rows.size();
  m.cells = toy::covering_array(choices, [&](const Row& row) { return allowed(row, false); }, exact.rows);
  return m;
}
inline const Matrix& whole() {
  static const Matrix all = matrix_by(refusal_of);
  return all;
}

}  // namespace matrix
