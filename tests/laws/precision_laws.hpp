// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of a precision: the master is at least as wide as the weight, every answer is an element that kernels compute with,
/// and the answer never changes.
///
///     laws::precision(Bf16{});
#pragma once

#include "law.hpp"

#include <dsx/policy/precision.hpp>

namespace laws {

using namespace dsx;

template <PrecisionPolicy P>
void precision(const P& policy) {
  const Elements e = policy.elements();
  LAW(policy.elements() == e, "other elements the second time");
  for (const Element one : {e.value, e.gradient, e.master}) dispatch(one, [](auto) {});  // dsx-E405 for what no kernel computes with
  LAW(bytes_of(e.master) >= bytes_of(e.value), "a master of ", name_of(e.master), " is narrower than weights of ", name_of(e.value));
  // A gradient is of the value's element or its sums' (kernels know no other).
  LAW(e.gradient == e.value || e.gradient == wide(e.value), "gradients of ", name_of(e.gradient), " beside values of ", name_of(e.value));
  LAW(wide(e.value) == wide(e.master), "a master of ", name_of(e.master), " beside values of ", name_of(e.value));
  LAW(AnyPrecision{policy}.elements() == e, "AnyPrecision answers otherwise");
}

}  // namespace laws
