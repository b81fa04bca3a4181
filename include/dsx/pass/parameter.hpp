// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a layer declares about a weight or a buffer: shape, start, how a mesh axis cuts it. No storage, no rank, no element.
///
///     struct Scale {
///       Parameter factor;
///       explicit Scale(Extent channels) : factor{vector_parameter(channels, 1)} {}
///       void parts(auto& visit) const { visit("factor", factor); }
///     };
#pragma once

#include <dsx/core/axes.hpp>
#include <dsx/core/error.hpp>
#include <dsx/core/random.hpp>
#include <dsx/core/shape.hpp>

#include <concepts>
#include <string>
#include <string_view>

namespace dsx {

/// The number of a parameter or buffer within its unit; Sequential's constructor gives it.
using Slot = std::uint32_t;
inline constexpr Slot unnumbered = Slot(-1);

/// Elements start normally distributed.
struct Init {
  float mean = 0, deviation = 0;
};

enum class Cut : std::uint8_t { none, rows, columns };

/// The cut dimension is `pieces` pieces (q, k, v), each shared out in units of `grain` (a head). They are equal, but for the first, which is
/// `lead` times as wide (queries whose heads share keys) and shared out in units of `lead` grains.
struct Split {
  Cut cut = Cut::none;
  Extent pieces = 1, grain = 1;
  Axes over = Axes::tensor;
  Extent lead = 1;

  /// All pieces together in widths of an ordinary one.
  constexpr Extent widths() const { return pieces + lead - 1; }
  /// Where piece `number` lies in the cut dimension.
  constexpr Range piece(Extent extent, Extent number) const {
    const Extent width = extent / widths(), end = (lead + number) * width;
    return {number == 0 ? 0 : end - width, end};
  }
  friend constexpr bool operator==(const Split&, const Split&) = default;
};

/// Which optimizer rule a parameter takes: matrices and tables decay, only matrices are orthogonalised.
enum class Role : std::uint8_t { vector, matrix, table };

struct Parameter {
  Shape shape{};
  Init init{};
  Role role = Role::matrix;
  Split split{};
  std::string_view tie{};  // parameters of one name are one parameter
  bool trained = true;
  Extent stack = 1;        // so many of `shape` lie below one another and are shared out over the expert axis
  Slot slot = unnumbered;

  Shape whole() const { return {stack * shape.rows, shape.columns}; }
  /// The axes that cut it.
  Axes cut_over() const { return (split.cut == Cut::none ? Axes::none : split.over) | (stack > 1 ? Axes::expert : Axes::none); }
};

inline bool cut_by_tensor(const Parameter& p) { return p.split.cut != Cut::none && p.split.over == Axes::tensor; }
inline Parameter vector_parameter(Extent size, float mean = 0) {
  Parameter p;
  p.shape = {1, size}, p.init = {mean, 0}, p.role = Role::vector;
  return p;
}

/// State without a gradient (a running maximum, a router's load): each micro-batch adds to it, the commit merges ranks.
struct Buffer {
  enum class Merge : std::uint8_t { sum, max };
  Extent size = 0;
  Merge merge = Merge::sum;
  float start = 0;
  Slot slot = unnumbered;
};

/// The part of a parameter on one rank of the axes that cut it, and back from there to the whole.
struct LocalPart {
  Shape one{}, whole{}, local{};  // of a stack: one matrix of it, all, those that lie here
  Split split{};
  Range units{};  // of grain, within each piece
  Range stack{};  // of the stacked matrices

  LocalPart(const Parameter& p, Extent ranks, Extent rank, Extent stack_ranks = 1, Extent stack_rank = 0)
      : one{p.shape}, whole{p.whole()}, local{p.shape}, split{p.split} {
    if (p.stack > 1 && p.stack % stack_ranks != 0)
      fail<314>(p.stack, " experts can't be shared out evenly over ", stack_ranks, " ranks along expert");
    stack = p.stack > 1 ? share({0, p.stack}, stack_ranks, stack_rank) : Range{0, 1};
    if (split.cut != Cut::none) {
      const Extent extent = split.cut == Cut::rows ? one.rows : one.columns, each = split.widths() * split.grain;
      if (each == 0 || extent % each != 0 || extent / each < ranks)
        fail<313>(extent, split.cut == Cut::rows ? " rows" : " columns", " in ", split.pieces, " pieces",
                  split.lead == 1 ? "" : concat(" (the first ", split.lead, " times as wide)"), " by grains of ", split.grain, " can't be cut for ",
                  ranks, " ranks along ", to_text(split.over));
      units = share({0, extent / each}, ranks, rank);
      (split.cut == Cut::rows ? local.rows : local.columns) = units.size() * each;
    }
    local.rows *= stack.size();
  }
  Extent whole_index(Extent local_index) const {
    const Extent rows = local.rows / stack.size();  // of one
    Extent row = local_index / local.columns, column = local_index % local.columns;
    const Extent matrix = stack.begin + row / rows;
    row %= rows;
    if (split.cut == Cut::rows) row = along(row, one.rows);
    if (split.cut == Cut::columns) column = along(column, one.columns);
    return (matrix * one.rows + row) * one.columns + column;
  }
  /// Of the cut dimension, where there is one piece.
  Range mine() const { return {units.begin * split.grain, units.end * split.grain}; }

 private:
  Extent along(Extent i, Extent extent) const {
    const Extent width = units.size() * split.grain, first = split.lead * width;
    if (i < first) return split.lead * units.begin * split.grain + i;
    return split.piece(extent, 1 + (i - first) / width).begin + units.begin * split.grain + i % width;
  }
};

/// Calls f(path, parameter) and, where f takes them, f(path, buffer) for everything a layer declares, in the order of its parts().
template <class F>
struct PartsWalk {
  std::string path;
  F& f;
  void operator()(std::string_view name, const Parameter& p) {
    if constexpr (std::invocable<F&, std::string, const Parameter&>) f(path + std::string{name}, p);
  }
  void operator()(std::string_view name, const Buffer& b) {
    if constexpr (std::invocable<F&, std::string, const Buffer&>) f(path + std::string{name}, b);
  }
  void operator()(std::string_view name, const auto& layer) {
    PartsWalk inner{name.empty() ? path : path + std::string{name} + ".", f};
    layer.parts(inner);
  }
};
template <class Layer, class F>
void each_part(const std::string& path, const Layer& layer, F f) {
  PartsWalk<F> walk{path, f};
  layer.parts(walk);
}

}  // namespace dsx
