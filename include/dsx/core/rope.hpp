// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// How rotary positions (Su et al. 2021) are chosen for a model: numbers alone. kernels/rope.hpp applies them.
///
///     constexpr Rope llama_3_1{.base = 500000, .scaling = Rope::Scaling::llama3, .factor = 8, .trained = 8192, .slow = 1, .fast = 4};
#pragma once

#include <dsx/core/shape.hpp>

#include <cmath>

namespace dsx {

/// How fast pairs of channels turn: by base^(-2 pair / dim) a position, but for what is done to reach farther than `trained` positions.
struct Rope {
  enum class Scaling : std::uint8_t {
    none,
    linear,   ///< all `factor` times slower
    dynamic,  ///< a larger base where `length` exceeds `trained` (NTK)
    yarn,     ///< slow pairs `factor` times slower, fast ones as they were, a ramp between (Peng et al. 2023)
    llama3    ///< the same by wavelengths, as Llama 3.1 does it
  };
  double base = 10000;
  Scaling scaling = Scaling::none;
  double factor = 1;
  Extent trained = 0;  ///< positions that the model has learned with
  Extent length = 0;   ///< dynamic: of the sequences to come; up to `trained` nothing changes
  /// Turns within `trained` positions: with fewer than `slow` a pair is slowed down, with more than `fast` it isn't. Llama 3.1: 1 and 4.
  double slow = 1, fast = 32;
  double amplitude = 1;   ///< of the turned values, so that yarn's softmax keeps its temperature
  bool in_float = false;  ///< frequencies rounded to float, as the code that Hugging Face's models were trained with has them

  friend bool operator==(const Rope&, const Rope&) = default;
};

/// What yarn's authors take for the amplitude: 1 + 0.1 mscale ln(factor).
inline double yarn_amplitude(double factor, double mscale = 1) { return factor <= 1 ? 1 : 1 + 0.1 * mscale * std::log(factor); }

}  // namespace dsx
