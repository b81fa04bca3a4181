// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Decides how attention sees the keys and values of sequences that several ranks share.
///
///     Recipe{LocalAttention{}}    // the identity: no sequence is cut
///
/// Laws (tests/laws/attention_exchange_laws.hpp): it answers the same whenever it is asked, and the exchange never changes what
/// attention computes: gradients and losses are those of LocalAttention.
#pragma once

#include <dsx/policy/exclusion.hpp>

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

/// Any exchange, chosen at run time.
class AnyAttention : public AnyPolicy {
 public:
  using Slot = AttentionSlot;
  AnyAttention() : AnyAttention{LocalAttention{}} {}
  template <AttentionExchange P>
    requires(!std::same_as<P, AnyAttention>)
  AnyAttention(P policy) : AnyPolicy{tag_of<P, Slot>()}, cuts_sequences_{policy.cuts_sequences()} {}
  bool cuts_sequences() const { return cuts_sequences_; }

 private:
  bool cuts_sequences_;
};
static_assert(AttentionExchange<LocalAttention> && AttentionExchange<AnyAttention>);

}  // namespace dsx

// dsx-policy: attention exchange local LocalAttention{}
