// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The two ends of a language model: tokens and positions in, lazy logits out. The tensor axis cuts the vocabulary.
///
///     Embedding{vocabulary, positions, channels, dropout, "table"}, ..., Head{vocabulary, channels, "table"}   // tied
#pragma once

#include <dsx/nn/linear.hpp>
#include <dsx/ops/dropout.hpp>
#include <dsx/ops/embedding.hpp>
#include <dsx/ops/token_loss.hpp>

namespace dsx {

/// Tables [vocabulary, channels] and [positions, channels].
struct Embedding {
  Parameter tokens, positions;
  double dropout_rate;
  Embedding(Extent vocabulary, Extent length, Extent channels, double dropout = 0, std::string_view tie = {})
      : tokens{{vocabulary, channels}, {0, default_deviation}, Role::table, {Cut::rows}, tie},
        positions{{length, channels}, {0, default_deviation}, Role::table},
        dropout_rate{dropout} {}
  void parts(auto& visit) const { visit("tokens", tokens), visit("positions", positions); }
  Value<Common> operator()(Tokens t) const { return dropout(add_positions(fan_in(lookup(t, tokens)), positions), dropout_rate); }
};

/// A table [vocabulary, channels] alone, for models whose attention knows positions by itself.
struct TokenEmbedding {
  Parameter tokens;
  TokenEmbedding(Extent vocabulary, Extent channels, std::string_view tie = {})
      : tokens{{vocabulary, channels}, {0, default_deviation}, Role::table, {Cut::rows}, tie} {}
  void parts(auto& visit) const { visit("tokens", tokens); }
  Value<Common> operator()(Tokens t) const { return fan_in(lookup(t, tokens)); }
};

struct Head {
  Parameter table;
  Head(Extent vocabulary, Extent channels, std::string_view tie = {})
      : table{{vocabulary, channels}, {0, default_deviation}, Role::table, {Cut::rows}, tie} {}
  void parts(auto& visit) const { visit("table", table); }
  Logits operator()(Value<Common> x_RC) const {
    const Communicator& tensor = x_RC.pass->tensor();
    return {fan_out(x_RC), table.slot, LocalPart{table, tensor.size(), tensor.rank()}.mine(), table.shape.rows};
  }
};

}  // namespace dsx
