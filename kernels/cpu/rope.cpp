// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Rotary positions on the host, rows over threads: a row's sines serve all its heads.
#include "rope_body.hpp"
#include "support.hpp"

#include <dsx/kernels/rope.hpp>

#include <numbers>

namespace dsx {
namespace {

/// The pair, as a real number, that turns `turns` times within the trained positions.
double pair_of(const Rope& rope, Extent dim, double turns) {
  return double(dim) * std::log(double(rope.trained) / (turns * 2 * std::numbers::pi)) / (2 * std::log(rope.base));
}

}  // namespace

void rope_frequencies(const Rope& rope, Extent dim, double* of_pairs) {
  double base = rope.base;
  if (rope.scaling == Rope::Scaling::dynamic && rope.length > rope.trained)
    base *= std::pow(rope.factor * double(rope.length) / double(rope.trained) - (rope.factor - 1), double(dim) / double(dim - 2));
  const double first = std::max(std::floor(pair_of(rope, dim, rope.fast)), 0.0);
  const double last = std::min(std::ceil(pair_of(rope, dim, rope.slow)), double(dim) - 1);
  for (Extent pair = 0; pair < dim / 2; ++pair) {
    double& frequency = of_pairs[pair];
    frequency = std::pow(base, -2 * double(pair) / double(dim));
    if (rope.in_float) frequency = double(1 / float(std::pow(base, 2 * double(pair) / double(dim))));  // rounded twice, as theirs
    double slowed = 0;  // which part of the pair's speed is divided by the factor
    if (rope.scaling == Rope::Scaling::linear) slowed = 1;
    if (rope.scaling == Rope::Scaling::yarn) slowed = (double(pair) - first) / (first == last ? 1e-3 : last - first);
    if (rope.scaling == Rope::Scaling::llama3) {
      const double turns = double(rope.trained) * frequency / (2 * std::numbers::pi);
      slowed = (rope.fast - turns) / (rope.fast - rope.slow);
    }
    slowed = std::clamp(slowed, 0.0, 1.0);
    frequency *= slowed / rope.factor + (1 - slowed);
    if (rope.in_float) frequency = double(float(frequency));
  }
}

namespace kernels {
namespace {

inline constexpr Extent widest_pairs = 256;

/// direction 1 turns, -1 turns back.
void turn(std::string_view kernel, const View& from, const Heads& heads, std::span<const int> positions, const Rope& rope, double direction,
          const Grad& to) {
  on_host(kernel, {from, to.view});
  same_shape(kernel, from, to.view);
  if (heads.dim == 0 || heads.dim % 2 != 0 || heads.dim / 2 > widest_pairs)
    fail<301>("kernels::", kernel, " turns pairs of channels: heads of an even number of them up to ", 2 * widest_pairs, ", not of ", heads.dim);
  if (from.shape.columns != heads.columns() || from.shape.rows != positions.size())
    fail<301>("kernels::", kernel, " got ", from.shape.rows, " x ", from.shape.columns, " queries, keys and values for ", positions.size(),
              " positions and ", heads.query, " + 2 x ", heads.key_value, " heads of ", heads.dim);
  const RopeRow row{heads.query + heads.key_value, heads.dim / 2, heads.key_value * heads.dim};
  dispatch_grad(kernel, from.element, to.view.element, [&](auto zero, auto grad_zero) {
    using T = decltype(zero);
    using G = decltype(grad_zero);
    using W = Wide<T>;
    const auto& body = pick<RopeBody<T, G>>();
    double frequencies[widest_pairs];
    rope_frequencies(rope, heads.dim, frequencies);
    in_ranges(from.shape.rows, 2 * heads.columns(), [&](Range rows) {
      alignas(64) W cosines[widest_pairs], sines[widest_pairs];
      for (Extent r = rows.begin; r < rows.end; ++r) {
        for (Extent d = 0; d < row.half; ++d) {
          const double angle = double(positions[r]) * frequencies[d];  // in double: far positions turn many times
          cosines[d] = W(rope.amplitude * std::cos(angle)), sines[d] = W(direction * rope.amplitude * std::sin(angle));
        }
        body.row(from.pointer<T>() + r * heads.columns(), cosines, sines, to.view.pointer<G>() + r * heads.columns(), row, to.accumulate);
      }
    });
  });
}

}  // namespace

void rope(View qkv, const Heads& heads, std::span<const int> positions, const Rope& rope, View y) {
  same_element("rope", qkv, y);
  turn("rope", qkv, heads, positions, rope, 1, {y, false});
}
void rope_pullback(View dy, const Heads& heads, std::span<const int> positions, const Rope& rope, Grad dqkv) {
  turn("rope_pullback", dy, heads, positions, rope, -1, dqkv);
}

}  // namespace kernels
}  // namespace dsx
