// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E206
#include <dsx/dsx.hpp>

using namespace dsx;

struct UsersLayer {
  ColumnLinear up{8, 32}, gate{8, 32};
  Value<Sharded> operator()(Value<Common> x) const {
#ifdef FIXED
    return up(fan_out(x)) + gate(fan_out(x));
#else
    return up(fan_out(x)) + x;
#endif
  }
};
