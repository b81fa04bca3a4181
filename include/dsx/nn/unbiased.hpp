// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// ColumnLinear without a bias; RowLinear never has one.
///
///     UnbiasedColumns gate_up{channels, 2 * hidden, {Cut::columns, 2}};   // Replicated -> Sharded
#pragma once

#include <dsx/nn/linear.hpp>

namespace dsx {

struct UnbiasedColumns {
  Parameter weight;
  UnbiasedColumns(Extent in, Extent out, Split split = {Cut::columns}) : weight{{in, out}, {0, default_deviation}, Role::matrix, split} {}
  void parts(auto& visit) const { visit("weight", weight); }
  Value<Sharded> operator()(Value<Replicated> x_RC) const { return linear<op::MatmulColumns>(x_RC, weight); }
};

}  // namespace dsx
