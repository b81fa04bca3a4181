// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of a precision: the master is at least as wide as the weight, every answer is an element that kernels compute with,
/// and the answer never changes.
///
///     laws::precision(Bf16{});
#pragma once

#include <dsx/policy/precision.hpp>

#include <doctest/doctest.h>

namespace laws {

using namespace dsx;

template <PrecisionPolicy P>
void precision(const P& policy) {
  const Elements e = policy.elements();
  CHECK(policy.elements() == e);
  for (const Element one : {e.value, e.gradient, e.master}) CHECK_NOTHROW(dispatch(one, [](auto) {}));
  CHECK(bytes_of(e.master) >= bytes_of(e.value));
  // A gradient is of the value's element or its sums' (kernels know no other).
  CHECK((e.gradient == e.value || e.gradient == wide(e.value)));
  CHECK(wide(e.value) == wide(e.master));
  CHECK(AnyPrecision{policy}.elements() == e);
}

}  // namespace laws
