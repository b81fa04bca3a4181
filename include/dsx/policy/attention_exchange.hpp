// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides how attention sees the keys and values of sequences that several ranks share.
///
///     Recipe{LocalAttention{}}    // the identity: no sequence is cut
#pragma once

#include <concepts>

namespace dsx {

struct AttentionSlot {
  static constexpr const char* name = "attention exchange";
};
template <class P>
concept AttentionExchange = requires(const P& p) {
  { p.cuts_sequences() } -> std::same_as<bool>;
};

/// The identity.
struct LocalAttention {
  using Slot = AttentionSlot;
  constexpr bool cuts_sequences() const { return false; }
};
static_assert(AttentionExchange<LocalAttention>);

}  // namespace dsx
