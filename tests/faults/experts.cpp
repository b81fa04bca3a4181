// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Experts on several ranks that can't be: one message with the values, the same on every rank, and nobody waits.
#include "support/expert_axis.hpp"

#include <doctest/doctest.h>

using namespace dsx;
using test::Layout;
using test::width;

namespace {

struct Outcome {
  std::vector<int> numbers;
  std::vector<std::string> what;
  std::chrono::milliseconds took{};
  bool all(int number, std::string_view text) const {
    for (Rank r = 0; r < numbers.size(); ++r)
      if (numbers[r] != number || what[r].find(text) == std::string::npos) return false;
    return true;
  }
  /// One rank or some ranks throw it, and the others are told.
  bool all_told(int number, std::string_view text) const {
    bool thrown = false;
    for (Rank r = 0; r < numbers.size(); ++r) {
      if (what[r].find(text) == std::string::npos || (numbers[r] != number && numbers[r] != 501)) return false;
      thrown = thrown || numbers[r] == number;
    }
    return thrown;
  }
};
/// What each thread rank throws in two steps; rows by rank.
template <class Model>
Outcome outcome_of(const Model& model, const Layout& layout, const std::function<Extent(Rank)>& rows = [](Rank) { return test::length; }) {
  Outcome o{std::vector<int>(layout.degrees.ranks()), std::vector<std::string>(layout.degrees.ranks())};
  const auto begin = std::chrono::steady_clock::now();
  try {
    launch_threads(layout.degrees.ranks(),
                   [&](Session& session) {
                     try {
                       const Mesh mesh{session, layout.degrees};
                       Weights weights{mesh, model, layout.recipe()};
                       Trainer trainer{weights, Sgd{}, TokenLoss{}, {.micro_batches = layout.micro_batches(), .rows = rows(session.rank())}};
                       for (Extent step = 0; step < 2; ++step) trainer.step(test::batches_of(layout, mesh, step));
                     } catch (const Error& e) {
                       o.numbers[session.rank()] = e.number(), o.what[session.rank()] = e.what();
                       throw;
                     }
                   },
                   {.time_limit = std::chrono::seconds{20}});
  } catch (const std::exception&) {  // each rank's own is kept
  }
  o.took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
  return o;
}

/// A router that throws, or that is given NaNs, on one rank.
template <class R>
struct Failing {
  R router;
  Rank rank;
  bool throws;
  Extent experts = router.experts;
  struct Spoil : Operation {
    Node x, y;
    void forward(Pass& p) const {
      p.launch(
          [](View from, View to) {
            std::copy_n(from.pointer<double>(), from.size(), to.pointer<double>());
            if (to.shape.rows > 1) to.at<double>(1, 0) = std::numeric_limits<double>::quiet_NaN();
          },
          p.view(x), p.view(y));
    }
    void towards_inputs(Pass&) const {}
  };
  void parts(auto& visit) const { visit("", router); }
  Routes operator()(Value<Common> x_RC) const {
    Pass& p = *x_RC.pass;
    if (p.mesh().session().rank() != rank) return router(x_RC);
    if (throws && !p.dry()) fail<308>("rank ", rank, " stops before its experts");
    const auto y = p.make<Common>(p.shape(x_RC.node).columns);
    p.run(Spoil{{}, x_RC.node, y.node});
    return router(y);
  }
};
template <class R>
Failing(R, Rank, bool) -> Failing<R>;

constexpr Dropless<2> dropless{.width = width, .experts = 4};

}  // namespace

TEST_CASE("experts that the expert ranks can't share out evenly are refused on every rank: dsx-E314") {
  const Outcome o = outcome_of(test::mixture(Dropless<2>{.width = width, .experts = 6}), {.degrees = {.data = 4, .expert = 4}});
  CHECK(o.all(314, "dsx-E314: 6 experts can't be shared out evenly over 4 ranks along expert"));
}
TEST_CASE("expert ranks that data ranks can't make are refused on every rank: dsx-E311") {
  CHECK(outcome_of(test::mixture(dropless), {.degrees = {.data = 4, .expert = 3}}).all(311, "inner 1 and expert 3 must divide data 4"));
  CHECK(outcome_of(test::mixture(dropless), {.degrees = {.data = 1, .tensor = 2, .expert = 2}}).all(311, "expert 2 must divide data 1"));
}
TEST_CASE("a capacity of 0 is refused on every rank: dsx-E346") {
  const Outcome o = outcome_of(test::mixture(TopK<2>{.width = width, .experts = 4, .capacity_factor = 0}), {.degrees = {.data = 4, .expert = 4}});
  CHECK(o.all(346, "a capacity factor of 0 gives 4 experts no seat; Dropless<2> drops no token"));
}
TEST_CASE("logits of one rank that aren't numbers end all ranks with the row: dsx-E345") {
  for (const Degrees& degrees : {Degrees{.data = 2, .expert = 2}, Degrees{.data = 4, .expert = 4}, Degrees{.data = 2, .pipe = 2, .expert = 2}}) {
    const Outcome o = outcome_of(test::mixture(Failing{dropless, degrees.ranks() - 1, false}), {.degrees = degrees});
    CHECK(o.all_told(345, "row 1 of a micro-batch (number "));
    CHECK(o.took.count() < 5'000);
  }
}
TEST_CASE("a rank that fails before its tokens travel frees those that wait for them") {
  for (const Degrees& degrees : {Degrees{.data = 4, .expert = 4}, Degrees{.data = 2, .pipe = 2, .expert = 2}}) {
    const Outcome o = outcome_of(test::mixture(Failing{dropless, 0, true}), {.degrees = degrees});
    CHECK(o.all_told(308, "rank 0 stops before its experts"));
    CHECK(o.took.count() < 5'000);
  }
}
TEST_CASE("ranks that plan micro-batches of unequal size, or have little room, end when more tokens arrive than fit: dsx-E350") {
  const auto to_the_first = +[](RowId, Extent choice) { return int(choice); };
  const Outcome o = outcome_of(test::mixture(test::Told{4, to_the_first}), {.degrees = {.data = 2, .expert = 2}},
                               [](Rank r) { return r == 0 ? test::length : 2 * test::length; });
  CHECK(o.all(0, ""));  // these batches fit
  const Outcome small = outcome_of(test::mixture(test::Told{4, to_the_first}), {.degrees = {.data = 4, .expert = 2}},
                                   [](Rank r) { return r == 0 ? 3 : test::length; });  // its own sequences have 3 tokens
  CHECK(small.all_told(350, " rows of tokens arrive at the 2 experts of this rank ("));
  const Outcome crowded = outcome_of(test::mixture(Dropless<2>{.width = width, .experts = 4, .room = 0.1}), {.degrees = {.data = 4, .expert = 4}});
  CHECK(crowded.all_told(350, "and memory was planned for 2; plan micro-batches of equally many rows on all ranks that share out experts, or give"));
  CHECK(outcome_of(test::mixture(Dropless<2>{.width = width, .experts = 4, .room = 2}), {.degrees = {.data = 4, .expert = 4}}).all(0, ""));
}
