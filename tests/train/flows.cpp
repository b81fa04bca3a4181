// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What goes from unit to unit beside one value: flows of two values under pipelines, losses of units in the middle, and a pass inside a pass.
// labels: traj
#include "support/short_runs.hpp"

#include <doctest/doctest.h>

#include <functional>

using namespace dsx;
using namespace dsx::test;

namespace {

/// Two values travel; how many rows there are is restored where they arrive.
struct Pair {
  Value<Common> x{}, y{};
  Extent live = 0;
  void values(auto&& visit) { visit(x), visit(y); }
  void open(Pass& p) { live = p.batch().live(); }
};

/// The same node under both names, or two.
struct Fork {
  bool twice;
  Parameter weight{{width, width}, {0, 0.3F}};
  void parts(auto& visit) const { visit("weight", weight); }
  Pair operator()(Value<Common> x) const {
    const auto h = linear<op::Matmul>(x, weight);
    return {h, twice ? h : gelu(h), x.pass->batch().live()};
  }
};

/// What a test does in the middle of a unit, on the rank whose thread it runs on.
thread_local std::function<void()> inside = {};
void call_inside(Pass& p) {
  if (p.dry() || !inside) return;
  const auto f = std::exchange(inside, {});  // what runs inside has nothing inside itself
  f();
  inside = f;
}

/// Reads x, and y too if it `mixes`; else y only passes through.
struct Mix {
  bool mixes;
  Parameter weight{{width, width}, {0, 0.3F}};
  void parts(auto& visit) const { visit("weight", weight); }
  Pair operator()(Pair f) const {
    const auto h = linear<op::Matmul>(f.x, weight), g = gelu(h);
    call_inside(*f.x.pass);
    const auto z = h + g;  // h lay in scratch meanwhile
    return {mixes ? z + f.y : z, f.y, f.live};
  }
};

/// The sum of squares of a Common value: where tokens are split, of this rank's rows.
struct SumOfSquares : Operation {
  static constexpr const char* name = "sum_of_squares";
  Node x, sum;
  void forward(Pass& p) const {
    p.launch([](View from, View to) { to.at<double>(0, 0) = kernels::squared_norm(from); }, p.view(x), p.view(sum));
  }
  void towards_inputs(Pass& p) const {
    const auto pull = [](View from, View weight, Grad to) {
      for (Extent i = 0; i < from.size(); ++i) {
        double& g = to.view.pointer<double>()[i];
        g = (to.accumulate ? g : 0) + 2 * weight.at<double>(0, 0) * from.pointer<double>()[i];
      }
    };
    p.launch(pull, p.view(x), p.incoming(sum), p.gradient(x));
  }
};

/// Back to one value, made smaller by the rows of the batch; with an auxiliary loss of its own if it has a weight.
struct Join {
  bool reads_y;
  double auxiliary;
  bool multiplies_y = false;  // then its backward reads y, which is as old as the fork
  Parameter weight{{width, width}, {0, 0.3F}};
  void parts(auto& visit) const { visit("weight", weight); }
  Value<Common> operator()(Pair f) const {
    Pass& p = *f.x.pass;
    const auto h = scale(gelu(linear<op::Matmul>(f.x, weight)), 1 / (1 + double(f.live)));
    if (auxiliary > 0) {
      const Node sum = p.make_scalar(Element::f64);
      p.run(SumOfSquares{{}, h.node, sum});
      p.add_loss(sum, auxiliary, p.mesh().token_split() ? Axes::tensor : Axes::none);
    }
    if (multiplies_y) return h + linear<op::Matmul>(f.y, weight);
    return reads_y ? h + f.y : h;
  }
};

/// Cross entropy with something of the test's between the sum and its use.
struct Interrupted {
  Counts counts(const Batch& batch) const { return TokenLoss{}.counts(batch); }
  void operator()(const Logits& logits, const Counts& counts) const {
    const Node sum = cross_entropy(logits, 4);
    call_inside(*logits.hidden_RC.pass);
    logits.hidden_RC.pass->add_loss(sum, 1 / counts.targets);
  }
};

struct Choices {
  bool twice = true, first_mixes = true, second_mixes = true, joins = true;
  double auxiliary = 0;
  bool multiplies = false;
};
/// Six units: of two stages the second begins with the second mix, of three also with the first and with the join.
auto model_of(const Choices& c) {
  return Sequential{Named{"e", Embedding{vocabulary, length, width}},
                    Named{"fork", Fork{c.twice}},
                    Named{"first", Mix{c.first_mixes}},
                    Named{"second", Mix{c.second_mixes}},
                    Named{"join", Join{c.joins, c.auxiliary, c.multiplies}},
                    Named{"h", Head{vocabulary, width}}};
}
ShortRun run_of(const Choices& choices, const Layout& layout) { return short_run(model_of(choices), layout, 3, Interrupted{}); }

void check_equals_one_stage(const Choices& choices) {
  const ShortRun one = run_of(choices, {});
  CHECK(one.thrown == "");
  const Layout layouts[] = {{.degrees = {.pipe = 2}},
                            {.degrees = {.pipe = 3}, .schedule = GPipe{}},
                            {.degrees = {.pipe = 3}, .recompute = RecomputeUnits{}},
                            {.degrees = {.pipe = 6}},
                            {.degrees = {.tensor = 2, .pipe = 2, .token_split = true}, .recompute = RecomputeUnits{}}};
  for (const Layout& layout : layouts) {
    INFO("tensor ", layout.degrees.tensor, ", pipe ", layout.degrees.pipe, ", recomputed ", layout.recompute.units());
    const ShortRun many = run_of(choices, layout);
    CHECK(many.thrown == "");
    CHECK(distance(many, one) <= 1e-12);
  }
}

}  // namespace

TEST_CASE("a value that travels under two names gets both gradients") { check_equals_one_stage({.twice = true}); }

TEST_CASE("two values travel together, and what else their flow holds is restored where they arrive") { check_equals_one_stage({.twice = false}); }

TEST_CASE("a value that only passes through a stage comes back with the gradient of those behind it") {
  check_equals_one_stage({.twice = false, .first_mixes = false, .second_mixes = false});
  check_equals_one_stage({.twice = true, .first_mixes = false, .second_mixes = false});
}

TEST_CASE("a value that no later stage reads comes back with a gradient of zeros") {
  check_equals_one_stage({.twice = false, .first_mixes = true, .second_mixes = false, .joins = false});
  check_equals_one_stage({.twice = true, .first_mixes = false, .second_mixes = false, .joins = false});
}

TEST_CASE("flows of two values have the same bits where everything rests off the device") {
  for (const Choices& choices :
       {Choices{.twice = false}, Choices{.twice = false, .first_mixes = false, .second_mixes = false}, Choices{.twice = false, .multiplies = true}})
    for (Layout layout : {Layout{}, Layout{.recompute = RecomputeUnits{}}, Layout{.recompute = RecomputeOperations{}}, Layout{.degrees = {.pipe = 3}},
                          Layout{.degrees = {.data = 2, .pipe = 2}, .sharding = ZeRO<2>{}, .schedule = GPipe{}}}) {
      const ShortRun resident = run_of(choices, layout);
      CHECK(resident.thrown == "");
      for (const Tier tier : {Tier::host, Tier::disk}) {
        layout.offload = Rest<OptimizerState, Gradients, Parameters, Activations>{tier};
        const ShortRun offloaded = run_of(choices, layout);
        INFO("data ", layout.degrees.data, ", pipe ", layout.degrees.pipe, ", on the ", tier_names[Extent(tier)]);
        CHECK(offloaded.thrown == "");
        CHECK(offloaded == resident);
      }
    }
}

TEST_CASE("an auxiliary loss of a value whose tokens are split counts each rank's term, and of a whole value one rank's sum") {
  const ShortRun plain = run_of({}, {}), one = run_of({.auxiliary = 2}, {});
  CHECK(one.thrown == "");
  CHECK(one.losses[0] > plain.losses[0] + 1e-3);
  CHECK(distance(one.gradients, plain.gradients) > 1e-3);
  for (const bool token_split : {false, true})
    for (const AnyRecompute& recompute : {AnyRecompute{KeepActivations{}}, AnyRecompute{RecomputeUnits{}}})
      for (const Extent pipe : {1, 2}) {
        INFO("split ", token_split, ", pipe ", pipe, ", recomputed ", recompute.units());
        const ShortRun many = run_of({.auxiliary = 2}, {.degrees = {.tensor = 2, .pipe = pipe, .token_split = token_split}, .recompute = recompute});
        CHECK(many.thrown == "");
        CHECK(distance(many, one) <= 1e-12);
      }
}

TEST_CASE("a teacher that is evaluated inside a student's unit and objective changes nothing of the student") {
  const auto train = [](const Layout& layout, bool with_teacher, bool own_session, std::vector<double>& opinions) {
    ShortRun run;
    launch_threads(layout.degrees.ranks(), [&](Session& session) {
      if (!own_session) {  // both passes live in the same arenas at once, which no plan of one of them foresees
        session.memory.scratch.reserve(1 << 20), session.memory.carried.reserve(1 << 20), session.memory.gathered.reserve(1 << 20);
      }
      Session other{session.world()};
      const Mesh mesh{session, layout.degrees}, other_mesh{own_session ? other : session, layout.degrees};
      Weights student{mesh, model_of({}), layout.recipe(), 1}, teacher{other_mesh, model_of({}), layout.recipe(), 2};
      Trainer trainer{student, Sgd{.rate = 0.3, .momentum = 0.5}, Interrupted{}, {.micro_batches = layout.micro_batches(), .rows = length}};
      Evaluator evaluator{teacher, Interrupted{}, length};
      for (Extent step = 0; step < 2; ++step) {
        const std::vector<MicroBatch> batches = batches_of(layout, mesh, step);
        const double alone = evaluator.loss(batches);
        if (with_teacher)
          inside = [&] {
            const double opinion = evaluator.loss(batches);
            if (session.is_root()) opinions.push_back(opinion - alone);
          };
        const Verdict v = trainer.step(batches);
        inside = {};
        if (session.is_root()) run.losses.push_back(v.loss), run.norms.push_back(std::sqrt(v.squared_norm));
      }
      Tensors gradients = tensors_of(student, {Which::Of::gradient}), values = tensors_of(student);
      if (session.is_root()) run.gradients = std::move(gradients), run.weights = std::move(values);
    });
    return run;
  };
  const Layout layouts[] = {{},
                            {.recompute = RecomputeUnits{}},
                            {.recompute = RecomputeOperations{}},
                            {.degrees = {.data = 2}, .sharding = ZeRO<3>{}, .recompute = RecomputeUnits{}},
                            {.degrees = {.tensor = 2, .token_split = true}}};
  for (const Layout& layout : layouts) {
    INFO("data ", layout.degrees.data, ", tensor ", layout.degrees.tensor, ", recomputed ", layout.recompute.units());
    std::vector<double> none;
    const ShortRun alone = train(layout, false, false, none);
    for (const bool own_session : {false, true}) {
      std::vector<double> opinions;
      CHECK(train(layout, true, own_session, opinions) == alone);
      // Per micro-batch: two mixes, each once more where they are recomputed, and the objective.
      CHECK(opinions == std::vector<double>(2 * layout.micro_batches() * (layout.recompute.units() ? 5 : 3), 0.0));
    }
  }
}
