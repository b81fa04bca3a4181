// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Where values live, as the dry run learns it: saved for backward, scratch of a unit, carried between units.
#include "support/workbench.hpp"

#include <dsx/ops/add.hpp>
#include <dsx/ops/gelu.hpp>
#include <dsx/ops/layer_norm.hpp>
#include <dsx/ops/linear.hpp>
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

TEST_CASE("what operations of a named class give dies with its unit and is played again in backward, chains of them too") {
  test::on_one_rank([](const Mesh& mesh) {
    const auto chain = [](auto x) { return gelu(gelu(gelu(x))); };
    Workbench kept{mesh, one_input, {3, 4}, [&](Workbench& b) { b.weigh(chain(b.given<Common>(0))); }};
    Workbench again{mesh, one_input, {3, 4}, [&](Workbench& b) {
      b.weigh(b.pass().recompute(OperationClass::elementwise, chain, b.given<Common>(0)));
    }};
    const std::vector<Life>& lives = again.lifetimes().of;
    for (const Node dropped : {1, 2}) CHECK((lives[dropped].recomputed && lives[dropped].where() == Where::scratch));
    CHECK((!lives[3].recomputed && lives[3].where() == Where::scratch));  // nobody reads it in backward
    CHECK(kept.saved_bytes() == 3 * planned);
    CHECK(again.saved_bytes() == planned);
    CHECK(kept.run(true) == again.run(true));
    CHECK(kept.gradient(0) == again.gradient(0));
    CHECK(again.gradient_error() < 1e-7);
    return 0;
  });
}

TEST_CASE("what was played again makes room once its own operation has been pulled") {
  test::on_one_rank([](const Mesh& mesh) {
    Workbench bench{mesh, {test::random(seven_by_six), test::random({6, 6})}, {3, 4}, [](Workbench& b) {
      const auto deep = [&b](auto x) {
        for (int i = 0; i < 4; ++i) x = linear<op::Matmul>(gelu(x), b.parameter(1));
        return x;
      };
      b.weigh(b.pass().recompute(OperationClass::elementwise, deep, b.given<Common>(0)));
    }};
    CHECK(bench.saved_bytes() == 4 * planned);
    CHECK(bench.gradient_error() < 1e-7);
    CHECK(mesh.session().memory.tally(Category::carried).peak == planned);
    CHECK(mesh.session().memory.tally(Category::carried).now == 0);
    return 0;
  });
}

TEST_CASE("of a named class too, what leaves its unit is kept, and all that its operation gives with it") {
  test::on_one_rank([](const Mesh& mesh) {
    const std::vector<Parameter> parameters{test::random(seven_by_six), test::random({1, 6}, 1), test::random({1, 6}), test::random({6, 6})};
    const auto graph = [](OperationClass classes) {
      return [classes](Workbench& b) {
        const auto first = [&b](auto x) { return layer_norm(gelu(x), b.parameter(1), b.parameter(2)); };
        const auto y = b.pass().recompute(classes, first, b.given<Common>(0));  // 0: the input, 1: gelu, 2 and 3: the norm
        const auto z = b.pass().recompute(classes, [](auto v) { return scale(v, 2); }, y);  // 4
        b.cut();
        const auto second = [&b, z](auto v) { return gelu(linear<op::Matmul>(v, b.parameter(3))) + z; };
        b.weigh(b.pass().recompute(classes, second, y));
      };
    };
    using enum OperationClass;
    Workbench kept{mesh, parameters, {3, 4}, graph(none)}, again{mesh, parameters, {3, 4}, graph(norms | elementwise | sums)};
    const std::vector<Life>& lives = again.lifetimes().of;
    CHECK((lives[1].recomputed && lives[1].where() == Where::scratch));
    for (const Node result : {2, 3}) CHECK((!lives[result].recomputed && lives[result].where() == Where::saved));
    CHECK((!lives[4].recomputed && lives[4].where() == Where::carried));
    CHECK(kept.run(true) == again.run(true));
    for (Slot s = 0; s < parameters.size(); ++s) CHECK(kept.gradient(s) == again.gradient(s));
    CHECK(again.gradient_error() < 1e-7);
    return 0;
  });
}

namespace {

/// A user's own, which says nothing of a class.
struct Doubled : Operation {
  Node x, y;
  void forward(Pass& p) const { p.launch(kernels::scale, p.view(x), 2.0, p.view(y)); }
  void towards_inputs(Pass& p) const {
    p.launch(kernels::pass_on, p.incoming(y), p.gradient(x)), p.launch(kernels::pass_on, p.incoming(y), p.gradient(x));
  }
};

}  // namespace

TEST_CASE("what an operation without a class gives is kept under any policy") {
  test::on_one_rank([](const Mesh& mesh) {
    Workbench bench{mesh, one_input, {3, 4}, [](Workbench& b) {
      using enum OperationClass;
      b.weigh(b.pass().recompute(norms | elementwise | sums, [&b](auto x) {
        const auto y = b.pass().make<Common>(6);
        b.pass().run(Doubled{{}, x.node, y.node});
        return gelu(y);
      }, b.given<Common>(0)));
    }};
    CHECK(bench.lifetimes().of[1].where() == Where::saved);
    CHECK(bench.saved_bytes() == planned);
    CHECK(bench.gradient_error() < 1e-7);
    return 0;
  });
}

TEST_CASE("classes within a part that is played again, and such a part within classes") {
  test::on_one_rank([](const Mesh& mesh) {
    const auto three = [](auto x) { return gelu(gelu(gelu(x))); };
    constexpr auto all = OperationClass::elementwise;
    Workbench kept{mesh, one_input, {3, 4}, [&](Workbench& b) { b.weigh(gelu(three(gelu(b.given<Common>(0))))); }};
    Workbench within{mesh, one_input, {3, 4}, [&](Workbench& b) {
      const auto part = [&b, three](auto x) { return b.pass().recompute(all, three, x); };
      b.weigh(gelu(b.pass().recompute(part, gelu(b.given<Common>(0)))));
    }};
    Workbench around{mesh, one_input, {3, 4}, [&](Workbench& b) {
      const auto part = [&b, three](auto x) { return gelu(b.pass().recompute(three, gelu(x))); };
      b.weigh(b.pass().recompute(all, part, b.given<Common>(0)));
    }};
    CHECK(kept.saved_bytes() == 5 * planned);
    CHECK(within.saved_bytes() == 3 * planned);  // the input, the part's own and its result; two of the part are dropped again
    CHECK(around.saved_bytes() == 4 * planned);  // what enters the part is dropped, what it gives is kept
    for (Workbench* bench : {&within, &around}) {
      CHECK(bench->run(true) == kept.run(true));
      CHECK(bench->gradient(0) == kept.gradient(0));
    }
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
