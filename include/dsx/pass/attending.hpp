// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Where attention finds its keys and values: in the pass itself, in a cache, on other ranks. The layer's code is the same.
///
///     pass.attending = &cache;   // generation: the cache keeps keys and values of the rows before
#pragma once

#include <dsx/kernels/attention.hpp>
#include <dsx/pass/pass.hpp>

namespace dsx {

class Attending {
 public:
  virtual ~Attending() = default;
  /// Attends `qkv` of the rows under way; called once an attention layer, in the order of the model.
  virtual Value<Sharded> attend(Value<Sharded> qkv, const Heads& heads) = 0;
};

}  // namespace dsx
