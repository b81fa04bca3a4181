// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E205
#include <dsx/dsx.hpp>

using namespace dsx;

struct UsersHalf {
  ColumnLinear up{8, 32};
  RowLinear down{32, 8};
  void parts(auto& visit) const { visit("up", up), visit("down", down); }
#ifdef FIXED
  auto operator()(Value<Common> x) const { return fan_in(down(gelu(up(fan_out(x))))); }
#else
  auto operator()(Value<Common> x) const { return down(gelu(up(fan_out(x)))); }
#endif
};

Value<Common> users_model(Value<Common> x) { return Residual{LayerNorm{8}, UsersHalf{}}(x); }
