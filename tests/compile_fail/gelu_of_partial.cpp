// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E207
#include <dsx/dsx.hpp>

using namespace dsx;

struct UsersMlp {
  ColumnLinear up{8, 32};
  RowLinear down{32, 8};
  Value<Common> operator()(Value<Common> x) const {
#ifdef FIXED
    return gelu(fan_in(down(up(fan_out(x)))));
#else
    return fan_in(gelu(down(up(fan_out(x)))));
#endif
  }
};
