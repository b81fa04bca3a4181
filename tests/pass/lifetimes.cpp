// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Where values live, as the dry run learns it: saved for backward, scratch of a unit, carried between units.
#include "support/workbench.hpp"

#include <dsx/ops/add.hpp>
#include <dsx/ops/gelu.hpp>
#include <dsx/ops/map.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::Workbench;
using Where = Life::Where;

namespace {

constexpr Shape seven_by_six{7, 6};
const std::vector<Parameter> one_input{test::random(seven_by_six)};

/// Bytes of a 7 x 6 value at a bound of nine rows.
constexpr Extent planned = aligned(9 * 6 * sizeof(double));

}  // namespace

TEST_CASE("what backward reads is saved, what only its unit reads is scratch, what a later unit reads is carried") {
  test::on_one_rank([](const Mesh& mesh) {
    Workbench bench{mesh, one_input, {3, 4}, [](Workbench& b) {
      const auto x = b.given<Common>(0);     // 0: gelu's pullback reads it
      const auto y = gelu(x);                // 1: a sum's pullback reads nothing
      const auto z = x + y;                  // 2: read by the next unit, and not in backward
      b.cut();
      b.weigh(scale(z, 2));                  // 3: scratch; 4: the loss
    }};
    const std::vector<Life>& lives = bench.lifetimes().of;
    REQUIRE(lives.size() == 5);
    CHECK(lives[0].where() == Where::saved);
    CHECK(lives[1].where() == Where::scratch);
    CHECK(lives[2].where() == Where::carried);
    CHECK(lives[3].where() == Where::scratch);
    CHECK(lives[4].where() == Where::scratch);
    CHECK(bench.saved_bytes() == planned);
    CHECK(bench.gradient_error() < 1e-7);
    return 0;
  });
}

TEST_CASE("a value read in backward by a later unit is saved, not carried") {
  test::on_one_rank([](const Mesh& mesh) {
    Workbench bench{mesh, one_input, {3, 4}, [](Workbench& b) {
      const auto z = scale(b.given<Common>(0), 2);
      b.cut();
      b.weigh(gelu(z));
    }};
    CHECK(bench.lifetimes().of[0].where() == Where::scratch);
    CHECK(bench.lifetimes().of[1].where() == Where::saved);
    CHECK(bench.gradient_error() < 1e-7);
    return 0;
  });
}

TEST_CASE("recompute keeps its inputs and results alone") {
  test::on_one_rank([](const Mesh& mesh) {
    const auto three = [](auto x) { return gelu(gelu(gelu(x))); };
    Workbench kept{mesh, one_input, {3, 4}, [&](Workbench& b) { b.weigh(gelu(three(gelu(three(b.given<Common>(0)))))); }};
    Workbench again{mesh, one_input, {3, 4}, [&](Workbench& b) {
      const auto x = gelu(b.pass().recompute(three, b.given<Common>(0)));
      b.weigh(gelu(b.pass().recompute(three, x)));
    }};
    CHECK(kept.saved_bytes() == 8 * planned);
    // The input, two results and what stands between; in backward three more at a time.
    CHECK(again.saved_bytes() == 6 * planned);
    CHECK(kept.run(true) == again.run(true));
    CHECK(kept.gradient(0) == again.gradient(0));
    return 0;
  });
}

TEST_CASE("without recording nothing is saved") {
  test::on_one_rank([](const Mesh& mesh) {
    const auto graph = [](Workbench& b) {
      const auto x = gelu(b.given<Common>(0));
      b.cut();
      b.weigh(gelu(gelu(x)));
    };
    Workbench recorded{mesh, one_input, {3, 4}, graph}, evaluated{mesh, one_input, {3, 4}, graph, 2, false};
    CHECK(recorded.saved_bytes() > 0);
    CHECK(evaluated.saved_bytes() == 0);
    CHECK(recorded.run(false) == evaluated.run(false));
    return 0;
  });
}

TEST_CASE("a second run in the same arenas gives the same bits") {
  test::on_one_rank([](const Mesh& mesh) {
    Workbench bench{mesh, one_input, {3, 4}, [](Workbench& b) {
      const auto x = b.given<Common>(0), y = gelu(x);
      b.cut();
      b.weigh(x + gelu(y));
    }};
    const double loss = bench.run(true);
    const std::vector<double> gradient = bench.gradient(0);
    for (int i = 0; i < 3; ++i) {
      CHECK(bench.run(true) == loss);
      CHECK(bench.gradient(0) == gradient);
    }
    return 0;
  });
}

TEST_CASE("how many rows were planned for doesn't change the answer") {
  test::on_one_rank([](const Mesh& mesh) {
    const auto graph = [](Workbench& b) { b.weigh(gelu(gelu(b.given<Common>(0)))); };
    Workbench tight{mesh, one_input, {3, 4}, graph, 0}, loose{mesh, one_input, {3, 4}, graph, 50};
    CHECK(loose.saved_bytes() > tight.saved_bytes());
    CHECK(tight.run(true) == loose.run(true));
    CHECK(tight.gradient(0) == loose.gradient(0));
    return 0;
  });
}

TEST_CASE("sequences without rows change nothing") {
  test::on_one_rank([](const Mesh& mesh) {
    const auto graph = [](Workbench& b) { b.weigh(gelu(b.given<Common>(0))); };
    Workbench two{mesh, one_input, {3, 4}, graph}, with_empty{mesh, one_input, {0, 3, 0, 0, 4, 0}, graph};
    CHECK(two.run(true) == with_empty.run(true));
    CHECK(two.gradient(0) == with_empty.gradient(0));
    return 0;
  });
}
