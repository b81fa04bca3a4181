// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E207
#include <dsx/dsx.hpp>

using namespace dsx;

struct Square {
  static auto value(auto x) { return x * x; }
  static auto derivative(auto x) { return 2 * x; }
};

struct UsersLayer {
  RowLinear down{32, 8};
  Value<Common> operator()(Value<Sharded> x) const {
#ifdef FIXED
    return map<Square>(fan_in(down(x)));
#else
    return fan_in(map<Square>(down(x)));
#endif
  }
};
