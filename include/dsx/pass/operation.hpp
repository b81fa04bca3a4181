// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a pass knows of its batch, of a parameter in use, of a node's lifetime and of an operation.
///
///     struct Relu : Operation {                 // trivially copyable: ids, not pointers
///       static constexpr const char* name = "relu";
///       Node x, y;
///       void forward(Pass&) const;
///       void towards_inputs(Pass&) const;
///     };
#pragma once

#include <dsx/core/axes.hpp>
#include <dsx/tensor/rows.hpp>
#include <dsx/tensor/view.hpp>

#include <array>
#include <concepts>
#include <span>
#include <type_traits>
#include <vector>

namespace dsx {

class Pass;

using Unit = std::uint32_t;

/// One micro-batch as its kernels see it: row by row. Empty spans in a dry run.
struct Batch {
  std::span<const int> ids{}, targets{};   // a negative target isn't counted
  std::span<const int> positions{};        // of each row in its sequence
  std::span<const RowId> row_ids{};
  Sequences sequences{};
  Extent bound = 0;                        // the most rows there can be
  double step_rows = 0;                    // of the whole step on all ranks, which a mean over a step divides by; 0: those here are all

  Extent live() const { return ids.size(); }
};

/// What a layer sees of one parameter while its unit computes.
struct Held {
  View weight{}, gradient{};
  bool split = false;           // cut by the tensor axis
  Extent stack = 1;             // so many matrices lie below one another: experts of this rank
  bool trained = true;
  bool touched = false;         // the gradient holds something
  bool used = false;
  Axes partial = Axes::none;    // axes over which its use leaves the gradient a term of a sum
};
/// What a layer sees of one buffer: the merged value, and what this step adds to it.
struct HeldBuffer {
  View value{}, update{};
  bool touched = false;
};
/// By slot.
struct Binding {
  std::vector<Held*> parameters{};
  std::vector<HeldBuffer*> buffers{};
};

/// Where a node's value lives. The construction-time dry run finds out.
struct Life {
  Unit made = 0, last = 0, last_in_backward = 0;  // units that read it
  bool read_in_backward = false, leaves = false;
  bool recomputed = false;  // backward reads what its operation, played again, gives; then it dies with its unit
  bool read_elsewhere() const { return read_in_backward || leaves || last > made; }
  /// Saved, and nobody but its unit and the next one reads it.
  bool near() const { return read_in_backward && !leaves && last <= made + 1 && last_in_backward <= made + 1; }
  enum class Where { saved, scratch, carried };
  Where where() const { return read_in_backward ? Where::saved : leaves || last > made ? Where::carried : Where::scratch; }
};
struct Lifetimes {
  std::vector<Life> of{};  // by order of creation in a pass
  bool known = false;
};

struct Cost {
  double flops = 0, bytes = 0;
};

/// Operations that are cheaper to play again than their results are to keep, by kind; sets of them. A sum stands apart: it rarely
/// pays, for what it is played again from are two values.
enum class OperationClass : std::uint8_t { none = 0, norms = 1, elementwise = 2, sums = 4 };
constexpr OperationClass operator|(OperationClass a, OperationClass b) { return OperationClass(std::uint8_t(a) | std::uint8_t(b)); }
constexpr bool overlaps(OperationClass a, OperationClass b) { return (std::uint8_t(a) & std::uint8_t(b)) != 0; }

/// The defaults of an operation without weights. One of a class names its results, `auto results() const { return std::array{y}; }`,
/// and its forward reads nothing but nodes, weights and the batch.
struct Operation {
  static constexpr const char* name = "operation";
  static constexpr OperationClass operation_class = OperationClass::none;
  Cost cost(Pass&) const { return {}; }
  void towards_weights(Pass&) const {}
};
template <class O>
concept IsOperation = std::is_trivially_copyable_v<O> && requires(const O& o, Pass& p) {
  { o.cost(p) } -> std::same_as<Cost>;
  o.forward(p), o.towards_inputs(p), o.towards_weights(p);
};
template <class O>
inline constexpr bool replayable = O::operation_class == OperationClass::none || requires(const O& o) { std::get<0>(o.results()); };

/// Sees every operation of a pass: profiler, calibration, first divergence.
struct Observer {
  enum class Phase { forward, backward };
  virtual ~Observer() = default;
  virtual void before(const char* /*operation*/, Unit, Phase, const Cost&) {}
  virtual void after(const char* /*operation*/, Unit, Phase, Pass&) {}
};

}  // namespace dsx
