// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E206
#include <dsx/dsx.hpp>

using namespace dsx;

struct UsersHalf {
  ColumnLinear up{8, 8};
  RowLinear down{8, 8};
  void parts(auto& visit) const { visit("up", up), visit("down", down); }
#ifdef FIXED
  auto operator()(Value<Common> x) const { return fan_in(down(up(fan_out(x)))); }
#else
  auto operator()(Value<Common> x) const { return up(fan_out(x)); }
#endif
};

Value<Common> users_model(Value<Common> x) { return Residual{LayerNorm{8}, UsersHalf{}}(x); }
