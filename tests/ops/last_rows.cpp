// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gradient
#include "io/io_support.hpp"
#include "support/workbench.hpp"

#include <dsx/ops/last_rows.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::error_of, test::random, test::Workbench;

TEST_CASE("the last rows of ragged sequences are picked, and their gradients go back to them alone") {
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  for (const bool used_twice : {false, true}) {
    CAPTURE(used_twice);
    std::vector<double> picked;
    Workbench bench{mesh, {random({6, 5})}, {3, 1, 2}, [&](Workbench& b) {
                      const auto x = b.given<Replicated>(0);
                      const auto y = last_rows(x, 4);
                      if (!b.pass().dry()) picked = b.read(y.node);
                      b.weigh(y);
                      if (used_twice) b.weigh(x, 0.5, 9);  // then the gradient is added to what is there
                    }, 0};
    CHECK(bench.gradient_error() < 1e-8);
    bench.run(false);
    REQUIRE(picked.size() == 15);
    const Extent rows[] = {2, 3, 5};
    for (Extent s = 0; s < 3; ++s)
      for (Extent c = 0; c < 5; ++c) CHECK(picked[s * 5 + c] == bench.wholes[0][rows[s] * 5 + c]);
  }
}

TEST_CASE("more sequences than planned, and one without rows, have no last rows") {
  Session one{self_transport()}, two{self_transport()};
  const Mesh mesh{one, {}}, other{two, {}};
  const auto picking = [](Extent bound) {
    return [bound](Workbench& b) { b.weigh(last_rows(b.given<Replicated>(0), bound)); };
  };
  Workbench many{mesh, {random({4, 2})}, {2, 2}, picking(1), 0}, empty{other, {random({4, 2})}, {2, 0, 2}, picking(3), 0};
  const auto refused = error_of([&] { many.run(false); });
  CHECK(refused == 304);
  CHECK(refused.says("2 sequences in a micro-batch; the plan holds 1"));
  CHECK(error_of([&] { empty.run(false); }).says("sequence 1 of a micro-batch has no row"));
}
