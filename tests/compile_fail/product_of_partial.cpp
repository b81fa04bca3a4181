// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E210
#include <dsx/dsx.hpp>

using namespace dsx;

struct UsersLayer {
  RowLinear down{32, 8};
  Linear project{8, 8};
  Value<Common> operator()(Value<Sharded> x) const {
#ifdef FIXED
    return project(fan_in(down(x)));
#else
    return project(down(x));
#endif
  }
};
