// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E208
#include <dsx/dsx.hpp>

using namespace dsx;

struct UsersRow {
  RowLinear row{32, 8};
  Parameter bias{vector_parameter(8)};
  Value<Common> operator()(Value<Sharded> x) const {
#ifdef FIXED
    return add_bias(fan_in(row(x)), bias);
#else
    return fan_in(add_bias(row(x), bias));
#endif
  }
};
