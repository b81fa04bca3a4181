// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// How a value lies over the tensor axis, and the one table of what operations make of it.
///
///     Value<Replicated> y = fan_out(x);             // x: Value<Common>
///     static_assert(!accepted<Result<op::Elementwise, Partial>>);
///
/// The vocabulary of others: Common is spmd_types' I (or V where tokens are split), Replicated R, Sharded V, Partial P
/// (docs/from_deepspeed.md).
#pragma once

#include <cstdint>
#include <type_traits>

namespace dsx {

struct Common {};      ///< The residual stream: whole on every rank, or split by tokens if the mesh says so.
struct Replicated {};  ///< Whole on every rank; its gradient is a term of a sum.
struct Sharded {};     ///< Split by channels or heads.
struct Partial {};     ///< A term of a sum over the tensor axis.

template <class Distribution>
struct Value;

/// The result of a refused operation. It becomes any Value, so that one mistake gives one error.
struct Refused {
  template <class D>
  operator Value<D>() const;
};

namespace op {
struct Add {};
struct Linear {};       // elementwise and linear: scale
struct Elementwise {};  // elementwise and not linear: gelu
struct Dropout {};
struct Bias {};
struct Norm {};
struct Matmul {};
struct MatmulColumns {};
struct MatmulRows {};
struct Attention {};
}  // namespace op

/// What an operation gives for its operands. What isn't listed is refused.
template <class Operation, class... Operands> struct Table { using type = Refused; };

#define DSX_ROW(result, ...) template <> struct Table<__VA_ARGS__> { using type = result; }
//      result      operation            operands
DSX_ROW(Common,     op::Add,             Common, Common);
DSX_ROW(Replicated, op::Add,             Replicated, Replicated);
DSX_ROW(Sharded,    op::Add,             Sharded, Sharded);
DSX_ROW(Partial,    op::Add,             Partial, Partial);
DSX_ROW(Common,     op::Linear,          Common);
DSX_ROW(Replicated, op::Linear,          Replicated);
DSX_ROW(Sharded,    op::Linear,          Sharded);
DSX_ROW(Partial,    op::Linear,          Partial);
DSX_ROW(Common,     op::Elementwise,     Common);
DSX_ROW(Replicated, op::Elementwise,     Replicated);
DSX_ROW(Sharded,    op::Elementwise,     Sharded);
DSX_ROW(Common,     op::Dropout,         Common);
DSX_ROW(Replicated, op::Dropout,         Replicated);
DSX_ROW(Common,     op::Bias,            Common);
DSX_ROW(Replicated, op::Bias,            Replicated);
DSX_ROW(Sharded,    op::Bias,            Sharded);
DSX_ROW(Common,     op::Norm,            Common);
DSX_ROW(Replicated, op::Norm,            Replicated);
DSX_ROW(Common,     op::Matmul,          Common);
DSX_ROW(Replicated, op::Matmul,          Replicated);
DSX_ROW(Sharded,    op::MatmulColumns,   Replicated);
DSX_ROW(Partial,    op::MatmulRows,      Sharded);
DSX_ROW(Sharded,    op::Attention,       Sharded);
#undef DSX_ROW

template <class Operation, class... Operands>
using Result = typename Table<Operation, Operands...>::type;

template <class Out>
inline constexpr bool accepted = !std::is_same_v<Out, Refused>;
template <class D>
inline constexpr bool is_partial = std::is_same_v<D, Partial>;
template <class From, class To>
inline constexpr bool misses_fan_out = std::is_same_v<From, Common> && std::is_same_v<To, Replicated>;

class Pass;
using Node = std::uint32_t;

/// A value of one micro-batch under way: two words. The only template over values.
template <class Distribution>
struct Value {
  Pass* pass = nullptr;
  Node node = 0;

  Value() = default;
  Value(Pass* p, Node n) : pass{p}, node{n} {}

  /// Never converts: it is here so that a wrong program ends on the user's line with the way out.
  template <class Other>
  Value(const Value<Other>&) {
    constexpr bool complete = !is_partial<Other>, wants_complete = !is_partial<Distribution>;
    static_assert(complete || !wants_complete,
                  "dsx-E201: this value is a term of a sum over the tensor axis (Partial); finish the sum first: fan_in(value)");
    static_assert(wants_complete,
                  "dsx-E202: only a Partial can be summed over the tensor axis; this value already is complete: drop the second fan_in");
    static_assert(!misses_fan_out<Other, Distribution>,
                  "dsx-E203: a column-parallel layer reads a Replicated value; give it fan_out(value)");
    static_assert(!complete || !wants_complete || misses_fan_out<Other, Distribution>,
                  "dsx-E204: this value lies differently over the tensor axis than the one asked for");
  }

  void values(auto&& visit) { visit(*this); }
};

/// What goes from unit to unit: a Value, or a struct that lists its Values: `void values(auto&& visit) { visit(a), visit(b); }`.
/// Only those travel between pipeline stages; a struct that holds more restores it in `void open(Pass&)`.
template <class F>
concept Flow = std::is_default_constructible_v<F> && std::is_trivially_copyable_v<F> && requires(F f) { f.values([](auto&) {}); };

}  // namespace dsx
