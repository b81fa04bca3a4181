// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The acceptance table of distributions, whole: what each operation makes of each operand, and that all else is refused.
#include <dsx/ops/add.hpp>
#include <dsx/ops/attention.hpp>
#include <dsx/ops/bias.hpp>
#include <dsx/ops/dropout.hpp>
#include <dsx/ops/fan.hpp>
#include <dsx/ops/gelu.hpp>
#include <dsx/ops/layer_norm.hpp>
#include <dsx/ops/linear.hpp>
#include <dsx/ops/map.hpp>
#include <dsx/ops/token_loss.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

using C = Common;
using R = Replicated;
using S = Sharded;
using P = Partial;
using No = Refused;

/// What an operation gives for Common, Replicated, Sharded and Partial, in this order.
template <class Operation, class OfC, class OfR, class OfS, class OfP>
inline constexpr bool row = std::same_as<Result<Operation, C>, OfC> && std::same_as<Result<Operation, R>, OfR> &&
                            std::same_as<Result<Operation, S>, OfS> && std::same_as<Result<Operation, P>, OfP>;

//                operation          C   R   S   P
static_assert(row<op::Linear,        C,  R,  S,  P>);
static_assert(row<op::Elementwise,   C,  R,  S,  No>);
static_assert(row<op::Dropout,       C,  R,  No, No>);
static_assert(row<op::Bias,          C,  R,  S,  No>);
static_assert(row<op::Norm,          C,  R,  No, No>);
static_assert(row<op::Matmul,        C,  R,  No, No>);
static_assert(row<op::MatmulColumns, No, S,  No, No>);
static_assert(row<op::MatmulRows,    No, No, P,  No>);
static_assert(row<op::Attention,     No, No, S,  No>);

/// A sum takes two of one distribution and keeps it: of 16 pairs 4.
template <class A>
inline constexpr bool adds_only_to_itself = (std::same_as<Result<op::Add, A, C>, C> + std::same_as<Result<op::Add, A, R>, R> +
                                             std::same_as<Result<op::Add, A, S>, S> + std::same_as<Result<op::Add, A, P>, P>) == 1 &&
                                            std::same_as<Result<op::Add, A, A>, A>;
static_assert(adds_only_to_itself<C> && adds_only_to_itself<R> && adds_only_to_itself<S> && adds_only_to_itself<P>);
template <class A, class B>
inline constexpr bool sum_refused = std::same_as<Result<op::Add, A, B>, No>;
static_assert(sum_refused<C, R> && sum_refused<C, S> && sum_refused<C, P> && sum_refused<R, C> && sum_refused<R, S> && sum_refused<R, P> &&
              sum_refused<S, C> && sum_refused<S, R> && sum_refused<S, P> && sum_refused<P, C> && sum_refused<P, R> && sum_refused<P, S>);

/// An operation that nobody listed is refused, as is a user's distribution.
struct Unlisted {};
static_assert(row<Unlisted, No, No, No, No>);
static_assert(std::same_as<Result<op::Linear, Unlisted>, No> && std::same_as<Result<op::Add, Unlisted, Unlisted>, No>);

// The functions give what the table says.
template <class D>
using Given = Value<D>;
static_assert(std::same_as<decltype(Given<P>{} + Given<P>{}), Value<P>> && std::same_as<decltype(scale(Given<P>{}, 2)), Value<P>>);
static_assert(std::same_as<decltype(gelu(Given<S>{})), Value<S>> && std::same_as<decltype(dropout(Given<R>{}, 0.1)), Value<R>>);
static_assert(std::same_as<decltype(linear<op::MatmulColumns>(Given<R>{}, std::declval<const Parameter&>())), Value<S>>);
static_assert(std::same_as<decltype(linear<op::MatmulRows>(Given<S>{}, std::declval<const Parameter&>())), Value<P>>);
static_assert(std::same_as<decltype(linear<op::Matmul>(Given<C>{}, std::declval<const Parameter&>())), Value<C>>);
static_assert(std::same_as<decltype(fan_out(Given<C>{})), Value<R>> && std::same_as<decltype(fan_in(Given<P>{})), Value<C>>);

// A value is two words, and goes from unit to unit as it is.
static_assert(sizeof(Value<C>) == 2 * sizeof(void*) && std::is_trivially_copyable_v<Value<C>> && std::is_trivially_destructible_v<Value<C>>);
static_assert(Flow<Value<C>> && Flow<Value<P>> && Flow<Logits>);
struct Two {
  Value<C> a{};
  Value<S> b{};
  void values(auto&& visit) { visit(a), visit(b); }
};
struct Silent {
  Value<C> a{};
};
struct Owning {
  std::vector<Value<C>> all{};
  void values(auto&& visit) { visit(all.front()); }
};
static_assert(Flow<Two> && !Flow<Silent> && !Flow<Owning> && !Flow<int>);

// What is recorded can be copied byte by byte and needs no destructor.
struct Square {
  static auto value(auto x) { return x * x; }
  static auto derivative(auto x) { return 2 * x; }
};
static_assert(ElementwiseFunction<Square> && !ElementwiseFunction<Two>);
template <class... Operations>
inline constexpr bool recordable =
    ((IsOperation<Operations> && std::is_trivially_copyable_v<Operations> && std::is_trivially_destructible_v<Operations>) && ...);
static_assert(recordable<Add, Scale, AddBias, Dropout, GeluOperation, Norm, LinearOperation, CausalAttentionOperation, CrossEntropy, AllLogits,
                         FanOut, FanIn, Map<Square>, Seed>);
struct HoldsMemory : Operation {
  std::vector<int> list{};
  void forward(Pass&) const {}
  void towards_inputs(Pass&) const {}
};
struct WithoutPullback : Operation {
  void forward(Pass&) const {}
};
static_assert(!IsOperation<HoldsMemory> && !IsOperation<WithoutPullback>);

}  // namespace

TEST_CASE("the table of distributions was checked by the compiler") { CHECK(accepted<Result<op::Add, Common, Common>>); }
