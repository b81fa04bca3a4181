// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What only a run can know ends in an Error with the values in it, on every rank, never in a hang; and a refused step changes nothing.
#include "support/runs.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <limits>

using namespace toy;
using std::chrono::milliseconds;

namespace {

/// A user's layer that fails as a test asks it to, on the rank whose thread it runs on.
thread_local std::function<void()> on_forward = {};
thread_local bool poisons = false;

struct Poison : Operation {
  static constexpr const char* name = "poison";
  Slot slot;
  void forward(Pass&) const {}
  void towards_inputs(Pass&) const {}
  void towards_weights(Pass& p) const {
    const Grad g = p.weight_gradient(slot, Axes::none);
    const auto write = [](View v, float first) {
      std::fill_n(v.pointer<float>(), v.size(), 0.0F);
      *v.pointer<float>() = first;
    };
    p.launch(write, g.view, poisons ? std::numeric_limits<float>::quiet_NaN() : 0.0F);
  }
};
struct Trap {
  Parameter value{vector_parameter(4, 1)};
  void parts(auto& visit) const { visit("value", value); }
  Value<Common> operator()(Value<Common> x_RC) const {
    if (on_forward && !x_RC.pass->dry()) on_forward();
    x_RC.pass->run(Poison{{}, value.slot});
    return x_RC;
  }
};
auto make_trapped() {
  return Sequential{Named{"embedding", Embedding{vocabulary, length, width, 0, "token_table"}}, Named{"trap", Trap{}},
                    Named{"final", Chain{Named{"norm", LayerNorm{width}}, Named{"head", Head{vocabulary, width, "token_table"}}}}};
}

struct Outcome {
  std::vector<int> numbers;
  std::vector<std::string> what;
  milliseconds took{};
  bool all(int number) const {
    return std::all_of(numbers.begin(), numbers.end(), [&](int n) { return n == number; });
  }
  bool all_contain(std::string_view text) const {
    return std::all_of(what.begin(), what.end(), [&](const std::string& w) { return w.find(text) != w.npos; });
  }
};
/// What each of the thread ranks threw in main(session).
template <class Main>
Outcome outcome_of(Extent ranks, Main main) {
  Outcome o{std::vector<int>(ranks), std::vector<std::string>(ranks)};
  const auto begin = std::chrono::steady_clock::now();
  try {
    launch_threads(ranks,
                   [&](Session& session) {
                     try {
                       main(session);
                     } catch (const Error& e) {
                       o.numbers[session.rank()] = e.number(), o.what[session.rank()] = e.what();
                       throw;
                     }
                   },
                   {.time_limit = std::chrono::seconds{20}});
  } catch (const std::exception&) {  // each rank's own is kept
  }
  o.took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begin);
  return o;
}
/// A step of the toy, whose batches `change` may spoil.
template <class Change>
Outcome step_of(const Cell& c, const AnyRecipe& recipe, Change change) {
  return outcome_of(c.ranks(), [&](Session& session) {
    const Mesh mesh{session, c.degrees};
    Weights weights{mesh, make_model(), recipe};
    Trainer trainer{weights, optimizer_of(c.rule), TokenLoss{}, options_of(c)};
    auto batches = c.feed()(0, mesh.coordinate(Axes::data));
    change(session.rank(), batches);
    trainer.step(batches);
  });
}
Outcome step_of(const Cell& c, const AnyRecipe& recipe) {
  return step_of(c, recipe, [](Rank, auto&) {});
}
AnyRecipe with(const AnySharding& sharding) { return {sharding, AnySchedule{}, AnyOffload{}, AnyPrecision{}, AnyRecompute{}}; }
AnyRecipe with_schedule(const AnySchedule& schedule) { return {AnySharding{}, schedule, AnyOffload{}, AnyPrecision{}, AnyRecompute{}}; }

struct Given {
  using Slot = ShardingSlot;
  Residency answer;
  Residency residency(const ParameterInfo&, const Mesh&) const { return answer; }
};
struct Hasty {
  using Slot = ScheduleSlot;
  Program program(Extent, Extent, Extent micro_batches) const {
    Program p;
    for (Extent m = 0; m < micro_batches; ++m) p.backward(m), p.forward(m);
    return p;
  }
};
struct Overtaking {
  using Slot = ScheduleSlot;
  Program program(Extent stage, Extent, Extent micro_batches) const {
    Program p;
    for (Extent m = 0; m < micro_batches; ++m) p.forward(stage == 1 ? micro_batches - 1 - m : m);
    for (Extent m = 0; m < micro_batches; ++m) p.backward(m);
    return p;
  }
};

int number_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.number();
  }
  return 0;
}

}  // namespace

TEST_CASE("degrees that can't be are refused on every rank, with the equation") {
  const auto mesh_of = [](Degrees degrees) { return outcome_of(3, [&](Session& session) { const Mesh mesh{session, degrees}; }); };
  CHECK(mesh_of({.data = 2}).all(310));
  CHECK(mesh_of({.data = 2}).all_contain("data 2 x tensor 1 x pipe 1 = 2, but there are 3 ranks"));
  CHECK(mesh_of({.data = 3, .inner = 2}).all(311));
  CHECK(mesh_of({.data = 3, .expert = 2}).all(311));
  CHECK(mesh_of({.data = 3, .tensor = 0}).all(312));
  CHECK(mesh_of({.data = 3, .inner = 0}).all_contain("the mesh axis inner has no ranks"));
  CHECK(mesh_of({.data = 3}).all(0));
}

TEST_CASE("more stages than units are refused on every rank") {
  const Outcome o = step_of({.degrees = {.pipe = 6}}, with_schedule(GPipe{}));
  CHECK(o.all(303));
  CHECK(o.all_contain("the model's 5 units can't make 6 pipeline stages"));
}

TEST_CASE("residencies that don't nest are refused on every rank") {
  const Cell two{.degrees = {.data = 2}}, four{.degrees = {.data = 4, .inner = 2}};
  CHECK(step_of(two, with(Given{{.forward = Axes::data, .backward = Axes::data}})).all(103));
  CHECK(step_of(two, with(Given{{.gradients = Axes::data}})).all(103));
  CHECK(step_of(two, with(Given{{.state = Axes::pipe}})).all(103));
  CHECK(step_of({.degrees = {.tensor = 2}}, with(Given{{.state = Axes::tensor}})).all(103));
  CHECK(step_of(four, with(Given{{.forward = Axes::inner, .backward = Axes::inner, .gradients = Axes::data, .state = Axes::data}})).all(0));
}

TEST_CASE("weights or gradients whose slices don't contain the state's are refused on every rank") {
  for (const Residency& where : {Residency{.forward = Axes::outer, .backward = Axes::outer, .gradients = Axes::data, .state = Axes::data},
                                 Residency{.gradients = Axes::outer, .state = Axes::data}})
    for (Rank rank = 0; rank < 4; ++rank) {
      Session session = Session::dry(rank, 4);
      const Mesh mesh{session, {.data = 4, .inner = 2}};
      std::string what;
      try {
        const Weights weights{mesh, make_model(), with(Given{where})};
      } catch (const Error& e) {
        what = e.what();
      }
      CHECK(what == concat("dsx-E104: ", any(where.forward) ? "weights at rest" : "gradients",
                           " over outer and state over data don't nest; cut over inner before outer"));
    }
}

TEST_CASE("incorrect schedules are refused on every rank") {
  const Cell pipeline{.degrees = {.pipe = 2}, .micro_batches = 2};
  CHECK(step_of(pipeline, with_schedule(SingleStage{})).all(105));
  CHECK(step_of(pipeline, with_schedule(Hasty{})).all(105));
  CHECK(step_of(pipeline, with_schedule(Hasty{})).all_contain("with 2 stages and 2 micro-batches deadlock"));
  CHECK(step_of(pipeline, with_schedule(Overtaking{})).all(105));
  CHECK(step_of(pipeline, with_schedule(Overtaking{})).all_contain("messages overtake each other"));
  CHECK(step_of(pipeline, with_schedule(OneForwardOneBackward{})).all(0));
}

TEST_CASE("heads that don't divide the width are refused where the model is made") {
  CHECK(number_of([] { make_gpt2({.width = 12, .heads = 5}); }) == 307);
  CHECK(number_of([] { make_gpt2({.width = 12, .heads = 0}); }) == 307);
}

TEST_CASE("a bad batch on one rank names that rank and frees the others") {
  const Cell c{.degrees = {.data = 2, .tensor = 2}, .micro_batches = 2};
  const std::vector<int> token{1}, unknown{int(vocabulary)}, negative{-7}, long_row(length + 1, 1);
  // Data rank 1 is ranks 2 and 3.
  const auto spoiled = [&](auto spoil) {
    return step_of(c, with(ZeRO<2>{}), [&](Rank rank, std::vector<MicroBatch>& batches) {
      if (rank >= 2) spoil(batches);
    });
  };
  const auto refused_as = [&](int number, auto spoil) {
    const Outcome o = spoiled(spoil);
    // Two ranks have the batch: each of them refuses it itself or hears of the other.
    CHECK((o.numbers[2] == number || o.numbers[3] == number));
    for (const Rank r : {0, 1}) CHECK(o.numbers[r] == 501);
    for (const Rank r : {0, 1}) CHECK(o.what[r].find(concat("dsx-E", number, ": rank ")) != std::string::npos);
    CHECK(o.took < milliseconds{1'000});
  };
  refused_as(304, [](auto& batches) { batches.pop_back(); });
  refused_as(304, [&](auto& batches) { batches[1].add(token, token, 0); });
  refused_as(305, [&](auto& batches) { batches[1].clear(), batches[1].add(long_row, long_row, 0); });
  refused_as(306, [&](auto& batches) { batches[1].clear(), batches[1].add(unknown, token, 0); });
  refused_as(306, [&](auto& batches) { batches[0].clear(), batches[0].add(negative, token, 0); });
  refused_as(306, [&](auto& batches) { batches[1].clear(), batches[1].add(token, unknown, 0); });
  CHECK(number_of([&] { MicroBatch{}.add(long_row, token, 0); }) == 304);
}

TEST_CASE("a step that was refused in its middle leaves no trace in the next one") {
  for (const bool recompute : {false, true}) {
    const Cell c{.micro_batches = 2, .recompute = recompute, .rule = Rule::adamw};
    const auto train = [&](bool spoil) {
      Session session{self_transport()};
      const Mesh mesh{session, {}};
      Weights weights{mesh, make_model(), recipe_of(c)};
      Trainer trainer{weights, optimizer_of(c.rule), TokenLoss{}, options_of(c)};
      Run run;
      for (Extent step = 0; step < 4; ++step) {
        if (spoil) {
          auto bad = c.feed()(step, 0);
          bad[1].clear();
          const std::vector<int> good{1, 2}, unknown{3, int(vocabulary)};
          step == 1 ? bad[1].add(good, unknown, 0) : step == 2 ? bad[1].add(unknown, good, 0) : bad.clear();
          CHECK(number_of([&] { trainer.step(bad); }) == (step == 1 || step == 2 ? 306 : 304));
          CHECK(trainer.steps() == step);
        }
        run.losses.push_back(trainer.step(c.feed()(step, 0)).loss);
      }
      for (const ParameterRecord& r : weights.records()) run.weights.push_back({r.path, weights.weight<double>(r.path)});
      return run;
    };
    CHECK(same(train(true), train(false)));
  }
}

TEST_CASE("a gradient that isn't finite is refused by all ranks, with step, tensor and rank, and nothing changes") {
  // The parameter's first element is summed, and answered for, by the first data rank of the second stage.
  const Degrees degrees{.data = 2, .pipe = 2};
  std::vector<int> unchanged(4), went_on(4);
  std::vector<std::string> refusals(4);
  const Outcome o = outcome_of(4, [&](Session& session) {
    const Mesh mesh{session, degrees};
    Weights weights{mesh, make_trapped(), Recipe{ZeRO<2>{}, GPipe{}}};
    Trainer trainer{weights, AdamW{}, TokenLoss{}, {.rows = 32, .clip = 0.5}};
    const auto batches = Feed{2, 1}(0, mesh.coordinate(Axes::data));
    trainer.step(batches);
    const auto all = [&] {
      std::vector<float> values;
      for (const ParameterRecord& r : weights.records())
        for (const Extent state : {0, 1, 2})
          for (const float x : state ? weights.collect<float>(r.path, {Which::Of::state, state - 1}) : weights.weight(r.path)) values.push_back(x);
      return values;
    };
    const auto before = all();
    poisons = session.rank() == 1;  // the first stage holds the trap (units 0, 1); the other data rank has a good gradient
    try {
      trainer.step(batches);
    } catch (const Error& e) {
      refusals[session.rank()] = e.what();
    }
    poisons = false;
    unchanged[session.rank()] = all() == before && trainer.steps() == 1;
    trainer.step(batches);
    went_on[session.rank()] = trainer.steps() == 2;
  });
  CHECK(o.all(0));
  for (const std::string& what : refusals) {
    CHECK(what.starts_with("dsx-E409: step 2: the loss is "));
    CHECK(what.ends_with("; the first tensor whose gradient isn't finite is trap.value, on rank 0"));
  }
  CHECK(unchanged == std::vector<int>(4, 1));
  CHECK(went_on == std::vector<int>(4, 1));
}

TEST_CASE("a weight that isn't finite on one rank stops the step on all ranks before anything changes") {
  const Cell c{Sharding::zero_3, {.data = 2, .tensor = 2}, Schedule::single, 2, false, Rule::adamw, {}};
  std::vector<int> unchanged(4);
  const Outcome o = outcome_of(4, [&](Session& session) {
    const Mesh mesh{session, c.degrees};
    Weights weights{mesh, make_model(), recipe_of(c)};
    Trainer trainer{weights, optimizer_of(c.rule), TokenLoss{}, options_of(c)};
    const auto batches = c.feed()(0, mesh.coordinate(Axes::data));
    trainer.step(batches);
    const auto before = weights.weight<double>("blocks.0.mlp.down.weight");
    for (Bundle& b : weights.bundles().all())
      if (session.rank() == 3 && b.kind.role == Role::matrix && b.units.front() == 2)
        *b.rest.pointer<float>() = std::numeric_limits<float>::quiet_NaN();
    try {
      trainer.step(batches);
    } catch (const Error&) {
      unchanged[session.rank()] = weights.weight<double>("blocks.0.mlp.down.weight") == before && trainer.steps() == 1;
      throw;
    }
  });
  CHECK(o.all(409));
  CHECK(o.all_contain("dsx-E409: step 2: the loss is "));
  CHECK(o.all_contain("nan"));
  CHECK(o.all_contain(o.what[0]));
  CHECK(unchanged == std::vector<int>(4, 1));
}

TEST_CASE("a rank that throws in the middle of a step ends it on all ranks") {
  for (const Rank thrower : {0, 1, 3}) {
    const Outcome o = outcome_of(4, [&](Session& session) {
      const Mesh mesh{session, {.data = 2, .pipe = 2}};
      Weights weights{mesh, make_trapped(), Recipe{ZeRO<3>{}, OneForwardOneBackward{}, RecomputeUnits{}}};
      Trainer trainer{weights, AdamW{}, TokenLoss{}, {.micro_batches = 2, .rows = 16}};
      const auto batches = Feed{2, 2}(0, mesh.coordinate(Axes::data));
      trainer.step(batches);
      int calls = 0;
      if (session.rank() == thrower)
        on_forward = [&calls] {
          if (++calls == 2) fail<308>("this rank stops");
        };
      if (session.rank() == thrower && thrower == 3) fail<308>("this rank stops");  // the last stage has no trap
      try {
        trainer.step(batches);
      } catch (...) {
        on_forward = {};
        throw;
      }
    });
    for (Rank r = 0; r < 4; ++r) CHECK(o.numbers[r] == (r == thrower ? 308 : 501));
    CHECK(o.all_contain("this rank stops"));
    CHECK(o.took < milliseconds{1'000});
  }
}
