// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E209
#include <dsx/nn/gated_mlp.hpp>
#include <dsx/nn/rms_norm.hpp>

using namespace dsx;

struct UsersMlp {
  UnbiasedColumns gate_up{8, 64, {Cut::columns, 2}};
  RowLinear down{32, 8};
  Value<Common> operator()(Value<Common> x) const {
#ifdef FIXED
    return RmsNorm{8}(fan_in(down(swiglu(gate_up(fan_out(x))))));
#else
    return RmsNorm{8}(down(swiglu(gate_up(fan_out(x)))));
#endif
  }
};
