// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// How layers make a model: Sequential of units, Repeat, Chain, Residual, and names for their paths.
///
///     auto model = Sequential{Named{"embedding", Embedding{...}}, Named{"blocks", Repeat{12, block}}, Named{"head", Chain{LayerNorm{c}, Head{v,
///     c}}}};
///
/// A unit (an element of the Sequential; each turn of a Repeat) is gathered, cut between stages and recomputed as one.
#pragma once

#include <dsx/pass/pass.hpp>

#include <string>
#include <tuple>
#include <type_traits>

namespace dsx {

/// A layer with a name of its own in paths; without one, its number.
template <class Layer>
struct Named {
  std::string_view name;
  Layer layer;
};
template <class L>
Named(std::string_view, L) -> Named<L>;

template <class T>
inline constexpr bool is_named = false;
template <class L>
inline constexpr bool is_named<Named<L>> = true;

template <class T>
constexpr const auto& unnamed(const T& part) {
  if constexpr (is_named<T>) return part.layer;
  else return part;
}
template <class T>
std::string name_of_part(const T& part, Extent index) {
  if constexpr (is_named<T>) return std::string{part.name};
  else return std::to_string(index);
}

/// Several layers as one: last(... first(x)).
template <class... Layers>
struct Chain {
  std::tuple<Layers...> layers;
  explicit Chain(Layers... l) : layers{std::move(l)...} {}
  void parts(auto& visit) const { part<0>(visit); }
  auto operator()(auto x) const { return run<0>(x); }

 private:
  template <std::size_t I>
  void part(auto& visit) const {
    if constexpr (I < sizeof...(Layers)) visit(name_of_part(std::get<I>(layers), I), unnamed(std::get<I>(layers))), part<I + 1>(visit);
  }
  template <std::size_t I>
  auto run(auto x) const {
    if constexpr (I == sizeof...(Layers)) return x;
    else return run<I + 1>(unnamed(std::get<I>(layers))(x));
  }
};
template <class... L>
Chain(L...) -> Chain<L...>;

/// x + last(... first(x)).
template <class... Layers>
struct Residual {
  Chain<Layers...> branch;
  explicit Residual(Layers... l) : branch{std::move(l)...} {}
  void parts(auto& visit) const { branch.parts(visit); }
  template <class D>
  auto operator()(Value<D> x) const {
    const auto y = branch(x);
    using Branch = std::remove_const_t<decltype(y)>;
    constexpr bool alike = std::is_same_v<Branch, Value<D>> || std::is_same_v<Branch, Refused>;  // what was refused was said already
    constexpr bool one_is_partial = is_partial<D> != std::is_same_v<Branch, Value<Partial>>;
    static_assert(alike || !one_is_partial, "dsx-E205: the branch ends in a term of a sum (Partial) and x isn't one; end it in fan_in(value)");
    static_assert(alike || one_is_partial, "dsx-E206: the branch's result lies otherwise over the tensor axis than x, which it is added to");
    if constexpr (std::is_same_v<Branch, Value<D>>)
      return x + y;
    else
      return Refused{};
  }
};
template <class... L>
Residual(L...) -> Residual<L...>;

/// `times` units of one structure, each with weights of its own.
template <class Layer>
struct Repeat {
  Extent times;
  Layer layer;
};
template <class L>
Repeat(Extent, L) -> Repeat<L>;

template <class T>
inline constexpr bool is_repeat = false;
template <class L>
inline constexpr bool is_repeat<Repeat<L>> = true;
template <class L>
inline constexpr bool is_repeat<Named<Repeat<L>>> = true;

/// A model: units in order. It numbers each unit's parameters and buffers and is immutable from then on.
template <class... Units>
class Sequential {
  using Ends = std::tuple_element_t<sizeof...(Units) - 1, std::tuple<Units...>>;
  static_assert(!is_repeat<Ends>, "dsx-E211: a model ends in a head, not in a Repeat; put the repeated layer in front of one");

 public:
  explicit Sequential(Units... units) : units_{std::move(units)...} {
    each_unit([](const std::string&, const auto& layer, Unit) {
      Slot parameters = 0, buffers = 0;
      // The units are this object's own and not const yet.
      each_part("", layer, Numbering{parameters, buffers});
    });
  }

  /// visit(path, layer, index) for each unit; the path ends in a dot.
  void each_unit(auto visit) const { each<0>(0, visit); }
  Extent size() const {
    Extent n = 0;
    each_unit([&](const std::string&, const auto&, Unit) { ++n; });
    return n;
  }

  /// A typed fold over units [range.begin, range.end): `visit.enter(flow)` fills the flow where the range begins behind unit 0,
  /// `visit.unit(layer, index, flow, last)` runs each, `visit.leave(flow)` takes it where the range ends before the last unit.
  void walk(Range range, Flow auto flow, auto& visit) const { step<0>(0, range, flow, visit); }

 private:
  struct Numbering {
    Slot &parameters, &buffers;
    void operator()(const std::string&, const Parameter& p) { const_cast<Parameter&>(p).slot = parameters++; }
    void operator()(const std::string&, const Buffer& b) { const_cast<Buffer&>(b).slot = buffers++; }
  };

  template <std::size_t I>
  void each(Unit index, auto& visit) const {
    if constexpr (I < sizeof...(Units)) {
      const auto& unit = unnamed(std::get<I>(units_));
      const std::string name = name_of_part(std::get<I>(units_), I) + ".";
      if constexpr (is_repeat<std::remove_cvref_t<decltype(unit)>>) {
        for (Extent t = 0; t < unit.times; ++t) visit(name + std::to_string(t) + ".", unit.layer, index++);
      } else {
        visit(name, unit, index++);
      }
      each<I + 1>(index, visit);
    }
  }

  template <std::size_t I>
  void step(Extent index, Range range, auto flow, auto& visit) const {
    if constexpr (I < sizeof...(Units)) {
      const auto& unit = unnamed(std::get<I>(units_));
      if constexpr (is_repeat<std::remove_cvref_t<decltype(unit)>>) {
        for (Extent t = 0; t < unit.times; ++t) flow = one(unit.layer, index++, range, flow, visit, std::false_type{});
        step<I + 1>(index, range, flow, visit);
      } else {
        step<I + 1>(index + 1, range, one(unit, index, range, flow, visit, std::bool_constant<I + 1 == sizeof...(Units)>{}), visit);
      }
    }
  }
  template <class Last>
  static auto one(const auto& layer, Extent index, Range range, auto flow, auto& visit, Last last) {
    decltype(layer(flow)) out{};
    if (!range.contains(index)) return out;
    if (index == range.begin && index > 0) visit.enter(flow);
    out = visit.unit(layer, Unit(index), flow, last);
    if (!last && index + 1 == range.end) visit.leave(out);
    return out;
  }

  std::tuple<Units...> units_;
};
template <class... U>
Sequential(U...) -> Sequential<U...>;

}  // namespace dsx
