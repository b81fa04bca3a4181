// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Starting weights: normally distributed by Philox and Box-Muller, a function of the parameter's path and the element's
/// index alone, so every layout starts from the same weights.
///
///     InitialValues values{"blocks.0.mlp.up.weight", seed, {.deviation = 0.02F}};
///     double w = values[index];
#pragma once

#include <dsx/core/random.hpp>
#include <dsx/pass/parameter.hpp>

#include <cmath>
#include <numbers>

namespace dsx {

class InitialValues {
 public:
  InitialValues(std::string_view path, std::uint64_t seed, Init init) : key_{philox_key({.seed = hash_of(path, seed)})}, init_{init} {}

  double operator[](Extent index) {
    if (init_.deviation == 0) return double(init_.mean);
    if (const Extent block = index / 4; block != block_) fill(block);
    return double(init_.mean) + double(init_.deviation) * normal_[index % 4];
  }

 private:
  void fill(Extent block) {
    block_ = block;
    const auto words = philox({std::uint32_t(block), std::uint32_t(block >> 32), 0, 0}, key_);
    for (int pair = 0; pair < 2; ++pair) {
      const double radius = std::sqrt(-2 * std::log(1.0 - double(to_uniform(words[2 * pair]))));
      const double angle = 2 * std::numbers::pi * double(to_uniform(words[2 * pair + 1]));
      normal_[2 * pair] = radius * std::cos(angle), normal_[2 * pair + 1] = radius * std::sin(angle);
    }
  }
  std::array<std::uint32_t, 2> key_;
  Init init_;
  Extent block_ = Extent(-1);
  std::array<double, 4> normal_{};
};

}  // namespace dsx
