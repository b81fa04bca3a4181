// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// After a step that threw or was refused, an evaluation, or a trainer that ended: what comes next is as if it had not been.
// labels: faults
#include "support/short_runs.hpp"

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

/// Added to the last element of the bias's gradient by this thread's rank.
thread_local double disturbance = 0;

/// Counts the micro-batches that pass into a buffer.
struct CountOne : Operation {
  static constexpr const char* name = "count";
  Node x, y;
  Slot buffer, bias;
  void forward(Pass& p) const {
    p.launch(kernels::copy, p.view(x), p.view(y));
    p.launch([](Grad g) {
      double& count = g.view.at<double>(0, 0);
      count = (g.accumulate ? count : 0) + 1;
    }, p.buffer_update(buffer));
  }
  void towards_inputs(Pass& p) const { p.launch(kernels::pass_on, p.incoming(y), p.gradient(x)); }
  void towards_weights(Pass& p) const {
    const Grad g = p.weight_gradient(bias, Axes::none);
    const auto add = [](Grad to, double more) {
      if (!to.accumulate) kernels::zero(to.view);
      to.view.pointer<double>()[to.view.size() - 1] += more;
    };
    p.launch(add, g, disturbance);
  }
};
struct Counted {
  Buffer seen{.size = 1};
  Parameter bias = vector_parameter(width);
  void parts(auto& visit) const { visit("seen", seen), visit("bias", bias); }
  Value<Common> operator()(Value<Common> x) const {
    const auto y = x.pass->make<Common>(width);
    x.pass->run(CountOne{{}, x.node, y.node, seen.slot, bias.slot});
    return add_bias(y, bias);
  }
};

/// Four units; of two stages the second begins with the block. Dropout draws by the step's number, so a step too many would show.
auto make_model() {
  const LayerNorm norm{width};
  return Sequential{Named{"e", Embedding{vocabulary, length, width, 0.2, "table"}}, Named{"counted", Counted{}},
                    Named{"block", Gpt2Block{norm, CausalAttention{width, 2, default_deviation, 0.2}, norm, Mlp{width, 12}, 0.2}},
                    Named{"end", Chain{Named{"norm", norm}, Named{"head", Head{vocabulary, width, "table"}}}}};
}
using Model = decltype(make_model());
using TheWeights = Weights<Model, AnyRecipe>;
using TheTrainer = Trainer<TheWeights, AdamW, TokenLoss>;

/// A rank's part of a world with the model in it.
struct World {
  Layout layout;
  Session& session;
  Mesh mesh{session, layout.degrees};
  TheWeights weights{mesh, make_model(), layout.recipe()};
  World(Session& s, const Layout& l) : layout{l}, session{s} {}

  TrainerOptions options() const { return {.micro_batches = layout.micro_batches(), .rows = length, .clip = 0.3, .seed = 9}; }
  std::vector<MicroBatch> batches(Extent step, bool counted = true) const { return batches_of(layout, mesh, step, counted); }
  double seen() const { return weights.buffer<double>("counted.seen")[0]; }
  std::vector<Extent> bytes() const {
    std::vector<Extent> all;
    for (Extent c = 0; c < categories; ++c) all.push_back(session.memory.tally(Category(c)).now);
    return all;
  }
  /// Everything that a step may change.
  Tensors everything() const {
    Tensors all = tensors_of(weights);
    for (const Extent state : {0, 1})
      for (auto& [path, values] : tensors_of(weights, {Which::Of::state, state})) all[concat(path, ", state ", state)] = values;
    all["counted.seen"] = {seen()};
    return all;
  }
  void set_position(double to) {
    auto positions = weights.weight<double>("e.positions");
    positions[0] = to;
    weights.assign<double>("e.positions", positions);
  }
};
template <class Main>
void on_layout(const Layout& layout, Main main) {
  launch_threads(layout.degrees.ranks(), [&](Session& session) {
    World world{session, layout};
    main(world);
  }, {.time_limit = std::chrono::seconds{60}});
}
const AdamW adamw{.rate = 3e-3, .epsilon = 1e-5};

const Layout layouts[] = {{},
                          {.recompute = RecomputeUnits{}},
                          {.recompute = RecomputeOperations{}},
                          {.degrees = {.data = 2}, .sharding = ZeRO<3>{}},
                          {.degrees = {.data = 2}, .sharding = ZeRO<3>{}, .recompute = RecomputeUnits{}}};
std::string text_of(const Layout& l) { return concat("data ", l.degrees.data, ", pipe ", l.degrees.pipe, ", recomputed ", int(l.recompute.units())); }

}  // namespace

TEST_CASE("a step after one that threw equals the same step without it, and no byte stays taken") {
  const std::vector<int> good{1, 2}, unknown{3, int(vocabulary)}, long_row(length + 1, 1);
  struct Failure {
    int number;
    std::vector<int> ids, targets;
  };
  const std::vector<Failure> failures{{306, unknown, good}, {306, good, unknown}, {304, long_row, long_row}};
  for (const Layout& layout : layouts) {
    INFO(text_of(layout));
    const auto train = [&](bool with_failures) {
      std::vector<double> losses;
      Tensors last;
      on_layout(layout, [&](World& world) {
        TheTrainer trainer{world.weights, adamw, TokenLoss{}, world.options()};
        for (Extent step = 0; step < 4; ++step) {
          if (with_failures && step > 0) {
            const auto& [number, ids, targets] = failures[step - 1];
            const auto before = world.bytes();
            auto bad = world.batches(7);  // the first micro-batch is as good as any
            bad[1].clear(), bad[1].add(ids, targets, 0);
            CHECK(number_of([&] { trainer.step(bad); }) == number);
            CHECK(world.bytes() == before);
            CHECK(trainer.steps() == step);
          }
          const double loss = trainer.step(world.batches(step)).loss;
          if (world.session.is_root()) losses.push_back(loss);
        }
        Tensors all = world.everything();
        for (auto& [path, values] : tensors_of(world.weights, {Which::Of::gradient})) all[path + ", gradient"] = values;
        if (world.session.is_root()) last = std::move(all);
      });
      return std::pair{losses, last};
    };
    const auto without = train(false), with = train(true);
    CHECK(without.first.size() == 4);
    CHECK(with.first == without.first);
    CHECK(with.second == without.second);
  }
}

TEST_CASE("an evaluation that threw leaves no byte taken and changes no later one") {
  on_layout({}, [](World& world) {
    Evaluator evaluator{world.weights, TokenLoss{}, length};
    const double loss = evaluator.loss(world.batches(0));
    const auto before = world.bytes();
    auto bad = world.batches(1);
    const std::vector<int> good{1, 2}, unknown{3, int(vocabulary)};
    bad[1].clear(), bad[1].add(good, unknown, 0);
    CHECK(number_of([&] { evaluator.loss(bad); }) == 306);
    CHECK(world.bytes() == before);
    CHECK(evaluator.loss(world.batches(0)) == loss);
  });
}

TEST_CASE("a buffer counts each micro-batch of a committed step once: no evaluation, no replay, no refused step") {
  for (const Layout& layout : layouts) {
    INFO(text_of(layout));
    on_layout(layout, [](World& world) {
      TheTrainer trainer{world.weights, adamw, TokenLoss{}, world.options()};
      Evaluator evaluator{world.weights, TokenLoss{}, length};
      for (int i = 0; i < 3; ++i) evaluator.loss(world.batches(0));
      CHECK(world.seen() == 0);
      trainer.step(world.batches(0));
      CHECK(world.seen() == 4);  // micro-batches of all data ranks
      for (int i = 0; i < 3; ++i) evaluator.loss(world.batches(1));
      CHECK(world.seen() == 4);
      // Refused at its end, in its middle and at its beginning.
      const double healthy = world.weights.weight<double>("e.positions")[0];
      world.set_position(std::numeric_limits<double>::quiet_NaN());
      CHECK(number_of([&] { trainer.step(world.batches(1)); }) == 409);
      world.set_position(healthy);
      CHECK(world.seen() == 4);
      auto bad = world.batches(1);
      const std::vector<int> unknown{3, int(vocabulary)};
      bad[1].clear(), bad[1].add(unknown, unknown, 0);
      CHECK(number_of([&] { trainer.step(bad); }) == 306);
      CHECK(number_of([&] { trainer.step(world.batches(1, false)); }) == 304);
      CHECK(world.seen() == 4);
      // Nor between a step's verbs.
      trainer.accumulate(world.batches(1));
      evaluator.loss(world.batches(2));
      trainer.commit(trainer.verdict());
      CHECK(world.seen() == 8);
      CHECK(std::isfinite(evaluator.loss(world.batches(1))));
    });
  }
}

TEST_CASE("a trainer that ends takes its state with it, and the next one starts afresh") {
  for (const Layout& layout : {Layout{}, Layout{.degrees = {.data = 2}, .sharding = ZeRO<3>{}}}) {
    INFO(text_of(layout));
    const auto train = [&](bool with_earlier) {
      Tensors last;
      on_layout(layout, [&](World& world) {
        const Extent without = world.session.memory.tally(Category::state).now;
        if (with_earlier) {
          // At rate 0 it moves no weight, but its moments fill.
          TheTrainer earlier{world.weights, AdamW{.rate = 0, .decay = 0}, TokenLoss{}, world.options()};
          for (Extent step = 0; step < 3; ++step) earlier.step(world.batches(step + 5));
          CHECK(world.everything().at("end.norm.gain, state 1") != std::vector<double>(width, 0));
          const Extent with = world.session.memory.tally(Category::state).now;
          CHECK(with > without);
          // A second one is refused and disturbs neither the first nor what it holds.
          const Tensors before = world.everything();
          const int refusal = number_of([&] { TheTrainer second{world.weights, adamw, TokenLoss{}, world.options()}; });
          CHECK(refusal == 410);
          if (refusal == 0) return;  // what the first held would have gone with the second
          CHECK(world.session.memory.tally(Category::state).now == with);
          CHECK(world.everything() == before);
          earlier.step(world.batches(8));
        }
        CHECK(world.session.memory.tally(Category::state).now == without);
        for (const Bundle& b : world.weights.bundles().all()) CHECK(b.states.empty());
        TheTrainer trainer{world.weights, adamw, TokenLoss{}, world.options()};
        for (const auto& [path, values] : tensors_of(world.weights, {Which::Of::state, 0})) CHECK(values == std::vector<double>(values.size(), 0));
        for (Extent step = 0; step < 2; ++step) trainer.step(world.batches(step));
        Tensors all = world.everything();
        all.erase("counted.seen");  // buffers are the weights' own, and go on
        if (world.session.is_root()) last = std::move(all);
      });
      return last;
    };
    const Tensors fresh = train(false);
    CHECK(fresh.size() > 10);
    CHECK(train(true) == fresh);
  }
}

TEST_CASE("a gradient that isn't finite is named by its tensor and by the session's rank that answers for it: dsx-E409") {
  // Rank 1 is data rank 1 of stage 0, and third in the order of data before stages.
  std::vector<std::string> refusals(4);
  std::vector<int> unchanged(4);
  const Layout layout{.degrees = {.data = 2, .pipe = 2}, .sharding = ZeRO<2>{}};
  on_layout(layout, [&](World& world) {
    TheTrainer trainer{world.weights, adamw, TokenLoss{}, world.options()};
    trainer.step(world.batches(0));
    const Tensors before = world.everything();
    const Rank rank = world.session.rank();
    disturbance = rank == 0 ? std::numeric_limits<double>::infinity() : 0;  // of an element whose sum lies on rank 1
    try {
      trainer.step(world.batches(1));
    } catch (const Error& e) {
      refusals[rank] = e.what();
    }
    disturbance = 0;
    unchanged[rank] = world.everything() == before && trainer.steps() == 1;
    trainer.step(world.batches(1));
  });
  for (const std::string& what : refusals) {
    CHECK(what.starts_with("dsx-E409: step 2: the loss is "));
    CHECK(what.ends_with("; the first tensor whose gradient isn't finite is counted.bias, on rank 1"));
  }
  CHECK(unchanged == std::vector<int>(4, 1));
}

TEST_CASE("a weight that isn't finite on one rank of two stages stops all four, which name one tensor and rank: dsx-E409") {
  for (const Rank poisoned : {0, 1, 2, 3}) {
    std::vector<std::string> refusals(4);
    on_layout({.degrees = {.data = 2, .pipe = 2}}, [&](World& world) {
      TheTrainer trainer{world.weights, adamw, TokenLoss{}, world.options()};
      const bool first_stage = world.session.rank() < 2;
      if (world.session.rank() == poisoned)
        for (Bundle& b : world.weights.bundles().all())
          for (const Segment& s : b.segments) {
            double& first = *b.rest.part(s.range()).pointer<double>();
            if (s.path == (first_stage ? "counted.bias" : "end.norm.gain")) first = std::numeric_limits<double>::quiet_NaN();
          }
      try {
        trainer.step(world.batches(0));
      } catch (const Error& e) {
        refusals[world.session.rank()] = e.what();
      }
    });
    // It reaches every gradient, and the sums over data and over the table's stages carry it to all ranks: the first has all of them.
    for (const std::string& what : refusals) {
      CHECK(what.starts_with("dsx-E409: step 1: the loss is "));
      CHECK(what.find("nan, the gradient's norm ") != std::string::npos);
      CHECK(what.ends_with("; the first tensor whose gradient isn't finite is table, on rank 0"));
    }
  }
}

TEST_CASE("a step without a counted target is refused on every rank and changes nothing; an evaluation of none is NaN: dsx-E304") {
  for (const Layout& layout : {Layout{}, Layout{.degrees = {.data = 2, .pipe = 2}, .sharding = ZeRO<1>{}}}) {
    INFO(text_of(layout));
    on_layout(layout, [](World& world) {
      TheTrainer trainer{world.weights, adamw, TokenLoss{}, world.options()};
      Evaluator evaluator{world.weights, TokenLoss{}, length};
      trainer.step(world.batches(0));
      const Tensors before = world.everything();
      const auto bytes = world.bytes();
      CHECK(number_of([&] { trainer.step(world.batches(1, false)); }) == 304);
      CHECK(number_of([&] { trainer.step(std::vector<MicroBatch>(world.layout.micro_batches())); }) == 304);
      CHECK(trainer.steps() == 1);
      CHECK(world.everything() == before);
      CHECK(world.bytes() == bytes);
      CHECK(std::isnan(evaluator.loss(world.batches(1, false))));
      CHECK(std::isnan(evaluator.loss({})));
      CHECK(std::isfinite(evaluator.loss(world.batches(1))));
      // A rank without any is no reason as long as another has some.
      trainer.step(world.batches(1, world.mesh.coordinate(Axes::data) == 0));
      CHECK(trainer.steps() == 2);
    });
  }
}
