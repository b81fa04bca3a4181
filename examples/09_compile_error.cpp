// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A wrong program doesn't compile, even for one rank: how a value lies over the tensor axis is its type.
// run:
// expect: down\(up\(x\)\) gives a term of a sum
// expect: gelu of a term of a sum: refused
// expect: fan_in of it, then gelu: accepted
#include <dsx/dsx.hpp>

#include <cstdio>

using dsx::Common, dsx::Partial, dsx::Replicated, dsx::Sharded, dsx::Value;

// What each step of a feed-forward layer gives, as the compiler sees it.
using Up = decltype(std::declval<dsx::ColumnLinear>()(Value<Replicated>{}));
using Down = decltype(std::declval<dsx::RowLinear>()(Up{}));
static_assert(std::same_as<Up, Value<Sharded>> && std::same_as<Down, Value<Partial>>);

// Operations accept what stands in one table; the default is refusal.
template <class Distribution>
constexpr bool takes_gelu = dsx::accepted<dsx::Result<dsx::op::Elementwise, Distribution>>;
static_assert(!takes_gelu<Partial> && takes_gelu<Common>);

// fan_in finishes a sum, once: what is complete can't be finished again.
template <class V>
concept can_fan_in = std::same_as<V, Value<Partial>>;
static_assert(can_fan_in<Down> && !can_fan_in<decltype(fan_in(Down{}))>);

// Take the line below into a program and the first error is, with nothing before it:
//   dsx-E201: this value is a term of a sum over the tensor axis (Partial); finish the sum first: fan_in(value)
//       Value<Common> operator()(Value<Common> x) const { return down(gelu(up(fan_out(x)))); }

int main() {
  std::printf("down(up(x)) gives %s\n", std::same_as<Down, Value<Partial>> ? "a term of a sum" : "something complete");
  std::printf("gelu of a term of a sum: %s\n", takes_gelu<Partial> ? "accepted" : "refused");
  std::printf("fan_in of it, then gelu: %s\n", takes_gelu<Common> ? "accepted" : "refused");
}
