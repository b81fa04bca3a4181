// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E201
#include <dsx/dsx.hpp>

using namespace dsx;

struct UsersBlock {
  RowLinear down{32, 8};
  Bias bias{8};
  Value<Common> operator()(Value<Sharded> x) const {
#ifdef FIXED
    return bias(fan_in(down(x)));
#else
    return bias(down(x));
#endif
  }
};
