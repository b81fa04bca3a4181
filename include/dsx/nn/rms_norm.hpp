// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Normalisation by the root mean square as a layer: a gain, no bias, no mean.
///
///     RmsNorm norm{channels, 1e-6};
#pragma once

#include <dsx/ops/rms_norm.hpp>

namespace dsx {

struct RmsNorm {
  Parameter gain;
  double epsilon;
  explicit RmsNorm(Extent channels, double e = 1e-6) : gain{vector_parameter(channels, 1)}, epsilon{e} {}
  void parts(auto& visit) const { visit("gain", gain); }
  template <class D>
  auto operator()(Value<D> x_RC) const {
    // Said here as well, as LayerNorm does, to keep the number in an error's first lines.
    constexpr bool whole_rows = accepted<Result<op::Norm, D>>;
    static_assert(whole_rows, "dsx-E209: RmsNorm needs whole rows: give it a Common or Replicated value, fan_in(value) makes one of a Partial");
    if constexpr (whole_rows)
      return rms_norm(x_RC, gain, epsilon);
    else
      return Refused{};
  }
};

}  // namespace dsx
