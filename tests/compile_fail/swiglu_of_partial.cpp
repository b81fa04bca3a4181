// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E207
#include <dsx/nn/gated_mlp.hpp>

using namespace dsx;

struct UsersMlp {
  UnbiasedColumns gate_up{8, 64, {Cut::columns, 2}};
  RowLinear down{64, 16};
  Value<Common> operator()(Value<Common> x) const {
#ifdef FIXED
    return swiglu(fan_in(down(gate_up(fan_out(x)))));
#else
    return fan_in(swiglu(down(gate_up(fan_out(x)))));
#endif
  }
};
