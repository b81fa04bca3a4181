// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E204
#include <dsx/nn/rotary_attention.hpp>

using namespace dsx;

struct UsersAttention {
  UnbiasedColumns qkv{8, 16, {.cut = Cut::columns, .pieces = 3, .grain = 4, .lead = 2}};
  Value<Sharded> operator()(Value<Replicated> x) const {
    const Heads heads{2, 1, 4};
#ifdef FIXED
    return causal_attention(rope(qkv(x), heads), heads);
#else
    return causal_attention(rope(x, heads), heads);
#endif
  }
};
