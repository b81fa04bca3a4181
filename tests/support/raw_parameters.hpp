// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A model of parameters alone, whose gradients a test gives: for an optimizer's arithmetic.
///
///     Weights weights{mesh, Sequential{Named{"raw", RawParameters{{{"matrix", Parameter{{7, 5}}}}}}}, Recipe{}};
///     Trainer trainer{weights, AdamW{}, NoLoss{}, {}};
#pragma once

#include <dsx/train/trainer.hpp>

namespace dsx::test {

/// A value that no kernel writes or reads.
struct Untouched : Operation {
  static constexpr const char* name = "untouched";
  void forward(Pass&) const {}
  void towards_inputs(Pass&) const {}
};

struct RawParameters {
  std::vector<std::pair<std::string, Parameter>> parameters{};
  void parts(auto& visit) const {
    for (const auto& [name, p] : parameters) visit(name, p);
  }
  Value<Common> operator()(Tokens t) const {
    t.pass->run(Untouched{});
    return t.pass->make<Common>(1);
  }
};

struct NoLoss {
  Counts counts(const Batch&) const { return {1}; }
  void operator()(Value<Common>, const Counts&) const {}
};

/// The parameters of tests/golden/optim. PyTorch's decay doesn't spare vectors, so all are matrices here.
inline constexpr std::pair<const char*, Shape> golden_parameters[] = {
    {"matrix", {7, 5}}, {"vector", {1, 13}}, {"scalar", {1, 1}}, {"one_by_one", {1, 1}}};

}  // namespace dsx::test
