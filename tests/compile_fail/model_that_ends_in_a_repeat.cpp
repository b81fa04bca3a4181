// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E211
#include <dsx/dsx.hpp>

using namespace dsx;

auto users_model() {
  const Repeat blocks{2, Residual{LayerNorm{8}, Mlp{8, 32}}};
#ifdef FIXED
  return Sequential{Embedding{256, 64, 8}, blocks, Chain{LayerNorm{8}, Head{256, 8}}};
#else
  return Sequential{Embedding{256, 64, 8}, blocks};
#endif
}

int main() {
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  Weights weights{mesh, users_model(), Recipe{}};
}
