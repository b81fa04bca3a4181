// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Layer normalisation as a layer, and dropout as one.
///
///     LayerNorm norm{channels};
#pragma once

#include <dsx/ops/dropout.hpp>
#include <dsx/ops/layer_norm.hpp>

namespace dsx {

struct LayerNorm {
  Parameter gain, bias;
  double epsilon;
  explicit LayerNorm(Extent channels, double e = 1e-5) : gain{vector_parameter(channels, 1)}, bias{vector_parameter(channels)}, epsilon{e} {}
  void parts(auto& visit) const { visit("gain", gain), visit("bias", bias); }
  template <class D>
  auto operator()(Value<D> x_RC) const {
    // Said here as well, for g++ shows a template's callers before its error: one layer less is one line less above the number.
    constexpr bool whole_rows = accepted<Result<op::Norm, D>>;
    static_assert(whole_rows, "dsx-E209: LayerNorm needs whole rows: give it a Common or Replicated value, fan_in(value) makes one of a Partial");
    if constexpr (whole_rows)
      return layer_norm(x_RC, gain, bias, epsilon);
    else
      return Refused{};
  }
};

/// Dropout with a fixed rate; nothing at rate 0 and in evaluation.
struct Dropped {
  double rate = 0;
  void parts(auto&) const {}
  Value<Common> operator()(Value<Common> x_RC) const { return dropout(x_RC, rate); }
};

}  // namespace dsx
