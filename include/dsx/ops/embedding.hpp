// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What enters a language model: rows of a table by token id, cut by vocabulary, and rows of a table by position.
///
///     auto x = add_positions(fan_in(lookup(tokens, table)), positions);
#pragma once

#include <dsx/kernels/embedding.hpp>
#include <dsx/kernels/elementwise.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

/// The flow that enters a language model: the ids of the batch under way.
struct Tokens {
  Pass* pass = nullptr;
  void values(auto&&) {}
  void open(Pass& p) { pass = &p; }
};

struct Lookup : Operation {
  static constexpr const char* name = "lookup";
  Node y;
  Slot table;
  Range mine;
  void forward(Pass& p) const { p.launch(kernels::lookup, p.batch().ids, p.weight(table), mine, Grad{p.view(y), false}); }
  void towards_inputs(Pass&) const {}
  void towards_weights(Pass& p) const {
    if (p.trained(table)) p.launch(kernels::lookup_pullback, p.batch().ids, p.incoming(y), mine, p.weight_gradient(table, Axes::none));
  }
};
inline Value<Partial> lookup(Tokens tokens, const Parameter& table) {
  Pass& p = *tokens.pass;
  if (!cut_by_tensor(table) || table.split.cut != Cut::rows)
    fail<313>("a table of tokens is cut by rows over the tensor axis; give it the split {Cut::rows}");
  for (const int id : p.batch().ids)
    if (id < 0 || Extent(id) >= table.shape.rows) fail<306>("token ", id, " of a vocabulary of ", table.shape.rows);
  const auto y = p.make<Partial>(table.shape.columns);
  p.run(Lookup{{}, y.node, table.slot, LocalPart{table, p.tensor().size(), p.tensor().rank()}.mine()});
  return y;
}

struct AddPositions : Operation {
  static constexpr const char* name = "positions";
  Node x, y;
  Slot table;
  Axes partial;
  std::span<const int> positions(Pass& p) const {
    const auto all = p.batch().positions;
    const Range mine = p.tokens();
    return all.empty() ? all : all.subspan(mine.begin, mine.size());
  }
  Range entries(Pass& p) const { return {0, p.weight(table).shape.rows}; }
  void forward(Pass& p) const {
    p.launch(kernels::copy, p.view(x), p.view(y));
    p.launch(kernels::lookup, positions(p), p.weight(table), entries(p), Grad{p.view(y), true});
  }
  void towards_inputs(Pass& p) const { p.launch(kernels::pass_on, p.incoming(y), p.gradient(x)); }
  void towards_weights(Pass& p) const {
    if (p.trained(table)) p.launch(kernels::lookup_pullback, positions(p), p.incoming(y), entries(p), p.weight_gradient(table, partial));
  }
};
inline Value<Common> add_positions(Value<Common> x, const Parameter& table) {
  Pass& p = *x.pass;
  for (const int position : p.batch().positions)
    if (Extent(position) >= table.shape.rows) fail<305>("a row at position ", position, "; the table has ", table.shape.rows, " positions");
  const auto y = p.make<Common>(table.shape.columns);
  p.run(AddPositions{{}, x.node, y.node, table.slot, p.partial<Common>(table.slot)});
  return y;
}

}  // namespace dsx
