// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A GPT-2 as Hugging Face's file has it, for tests against stored answers.
///
///     Weights weights{mesh, make_gpt2(shape_of(read_gpt2_config(golden("gpt2_tiny/config.json")))), Recipe{}};
#pragma once

#include "support/stored.hpp"

#include <dsx/io/hf_gpt2.hpp>
#include <dsx/io/weight_names.hpp>
#include <dsx/models/gpt2.hpp>

#include <map>

namespace dsx::test {

inline Gpt2Shape shape_of(const GptConfig& c) {
  return {.vocabulary = c.vocab_size, .positions = c.n_positions, .width = c.n_embd, .heads = c.n_head, .layers = c.n_layer,
          .hidden = c.inner(), .epsilon = c.layer_norm_epsilon, .gelu = c.activation == GeluForm::tanh ? Gelu::tanh : Gelu::erf};
}

/// Our path and the name in the file of each parameter of a GPT-2.
inline std::vector<WeightName> gpt2_names(const SafetensorsSet& file, Extent layers) {
  const NameIndex blocks[] = {{'i', layers}};
  return find_weights(file, expand(gpt2_weight_names, blocks), {.prefix = "transformer."});
}

}  // namespace dsx::test
