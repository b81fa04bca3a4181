// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of an exchange of attention: it answers the same whenever it is asked, and gradients and losses are those of LocalAttention.
///
///     laws::attention_exchange(LocalAttention{});
#pragma once

#include "identity_laws.hpp"

namespace laws {

template <AttentionExchange P>
void attention_exchange(const P& policy) {
  const bool cuts = policy.cuts_sequences();
  LAW(policy.cuts_sequences() == cuts, "another answer the second time");
  LAW(AnyAttention{policy}.cuts_sequences() == cuts, "AnyAttention answers otherwise");
  const Degrees degrees{.data = 2};
  LAW(bits_of(AnyRecipe{AnyAttention{policy}}, degrees) == bits_of(AnyRecipe{}, degrees), "other bits than where attention is local");
}

}  // namespace laws
