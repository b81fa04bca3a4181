// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Muon (Jordan et al. 2024): momentum orthogonalised by Newton-Schulz; its grain is a matrix. Vectors and tables go to AdamW.
///
///     Trainer trainer{weights, Muon{.rate = 2e-2}, TokenLoss{}, options};
///
/// A matrix whose parts lie on several ranks comes together on one owner, who orthogonalises it and sends it to all.
#pragma once

#include <dsx/kernels/matmul.hpp>
#include <dsx/optim/adamw.hpp>

namespace dsx {

struct Muon {
  double rate = 2e-2, momentum = 0.95, decay = 0;
  AdamW others{};

  std::vector<StateSpec> states(const ParameterInfo& info) const {
    if (info.role != Role::matrix) return others.states(info);
    return {{"momentum"}};
  }
  void update(Bundle& b, const Verdict& v, const Mesh& mesh) const {
    if (b.kind.role != Role::matrix) return others.update(b, v, mesh);
    Session& session = mesh.session();
    const Communicator& parts = mesh.along((b.where.state | b.kind.split_over) - Axes::expert);  // no expert lies on two expert ranks
    const Element element = b.elements.master;
    const auto scope = ScratchScope{session.memory};
    const View step = session.memory.scratch.take({b.mine.size(), 1}, element);
    session.launch(kernels::muon_momentum, momentum, v.scale, b.reduced, b.states[0], step);
    Rank owner = b.units.front();  // the same in every step, so that the plan holds
    for (const Segment& s : b.segments)
      for (Extent matrix = 0; matrix < s.part.stack.size(); ++matrix) {
        const auto matrix_scope = ScratchScope{session.memory};
        const View whole = session.memory.scratch.take(s.part.one, element);
        session.launch(kernels::zero, whole);
        session.launch(move_elements, &b, &s, matrix, step, whole, true);
        parts.all_reduce(whole).wait();  // each element comes from one rank
        const Rank turn = owner++ % parts.size();
        if (parts.rank() == turn) orthogonalise(whole, session);
        parts.broadcast(whole, turn).wait();
        session.launch(move_elements, &b, &s, matrix, step, whole, false);
      }
    // The factor max(1, rows / columns)^1/2 belongs to each matrix and is in `whole` already.
    session.launch(kernels::step_along, rate, rate * decay, b.master(), step, b.weight_of_state());
  }

 private:
  /// Between a slice and one whole matrix of a segment's stack: gathers into `whole`, or takes back from it.
  static void move_elements(const Bundle* b, const Segment* s, Extent matrix, View slice, View whole, bool gather) {
    const Extent here = s->part.local.size() / s->part.stack.size(), first = (s->part.stack.begin + matrix) * s->part.one.size();
    const Range part = overlap(b->mine, {s->offset + matrix * here, s->offset + (matrix + 1) * here});
    dispatch(slice.element, [&](auto zero) {
      using T = decltype(zero);
      each_element(*b, *s, part, [&](Extent i, Extent index) {
        gather ? whole.pointer<T>()[index - first] = slice.pointer<T>()[i] : slice.pointer<T>()[i] = whole.pointer<T>()[index - first];
      });
    });
  }

  /// Five quintic Newton-Schulz steps towards the nearest orthogonal matrix, then the factor max(1, rows / columns)^1/2.
  static void orthogonalise(View x, Session& session) {
    using kernels::Epilogue;
    using kernels::Matrix;
    const bool tall = x.shape.rows > x.shape.columns;
    const Extent n = std::min(x.shape.rows, x.shape.columns);
    Stack& scratch = session.memory.scratch;
    const View a = scratch.take({n, n}, x.element), p = scratch.take({n, n}, x.element), y = scratch.take(x.shape, x.element);
    const Matrix left{x, tall}, right{x, !tall};
    const Extent bytes = std::max({kernels::matmul_scratch(left, right, a), kernels::matmul_scratch({a}, {a}, p),
                                   tall ? kernels::matmul_scratch({x}, {p}, y) : kernels::matmul_scratch({p}, {x}, y)});
    const View packing = scratch.take({bytes, 1}, Element::u8);
    const double stretch = std::sqrt(std::max(1.0, double(x.shape.rows) / double(x.shape.columns)));
    session.launch([=] {
      kernels::scale(x, 1 / (std::sqrt(kernels::squared_norm(x)) + 1e-7), x);
      for (int round = 0; round < 5; ++round) {
        kernels::matmul(left, right, {a, false}, Epilogue{}, packing);
        kernels::matmul({a}, {a}, {p, false}, Epilogue{}, packing);
        combine(2.0315, p, -4.7750, a);
        tall ? kernels::matmul({x}, {p}, {y, false}, Epilogue{}, packing) : kernels::matmul({p}, {x}, {y, false}, Epilogue{}, packing);
        combine(3.4445, x, 1, y);
      }
      kernels::scale(x, stretch, x);
    });
  }
  /// a = f a + g b
  static void combine(double f, View a, double g, View b) {
    dispatch(a.element, [&](auto zero) {
      using T = decltype(zero);
      T* x = a.pointer<T>();
      const T* y = b.pointer<T>();
      for (Extent i = 0; i < a.size(); ++i) x[i] = T(Wide<T>(f) * Wide<T>(x[i]) + Wide<T>(g) * Wide<T>(y[i]));
    });
  }
};
static_assert(Optimizer<Muon>);

}  // namespace dsx

// dsx-policy: optimizer muon Muon{.rate = 1e-2, .others = {.rate = 3e-3, .epsilon = 1e-4}}
