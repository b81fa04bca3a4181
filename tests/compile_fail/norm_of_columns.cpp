// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E209
#include <dsx/dsx.hpp>

using namespace dsx;

struct UsersLayer {
  LayerNorm norm{8};
  ColumnLinear up{8, 32};
  Value<Sharded> operator()(Value<Common> x) const {
#ifdef FIXED
    return up(fan_out(norm(x)));
#else
    return norm(up(fan_out(x)));
#endif
  }
};
