// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E420
#include <dsx/dsx.hpp>

using namespace dsx;

struct Halve : Operation {
  static constexpr OperationClass operation_class = OperationClass::elementwise;
  Node x, y;
#ifdef FIXED
  auto results() const { return std::array{y}; }
#endif
  void forward(Pass& p) const { p.launch(kernels::scale, p.view(x), 0.5, p.view(y)); }
  void towards_inputs(Pass& p) const { p.launch(kernels::scale, p.incoming(y), 0.5, p.gradient(x).view); }
};

struct UsersLayer {
  Value<Common> operator()(Value<Common> x) const {
    const auto y = x.pass->make<Common>(x.pass->shape(x.node).columns);
    x.pass->run(Halve{{}, x.node, y.node});
    return y;
  }
};
