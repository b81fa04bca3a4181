// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// One mistake, one error: what the branch refuses the sum around it doesn't refuse again.
// error: dsx-E207
#include <dsx/dsx.hpp>

using namespace dsx;

struct UsersHalf {
  ColumnLinear up{8, 8};
  RowLinear down{8, 8};
  void parts(auto& visit) const { visit("up", up), visit("down", down); }
#ifdef FIXED
  auto operator()(Value<Common> x) const { return gelu(fan_in(down(up(fan_out(x))))); }
#else
  auto operator()(Value<Common> x) const { return gelu(down(up(fan_out(x)))); }
#endif
};

Value<Common> users_model(Value<Common> x) { return Residual{LayerNorm{8}, UsersHalf{}}(x); }
