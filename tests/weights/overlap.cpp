// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What is under way while a unit computes, told by the order of a rank's calls: the next unit's weights and the last one's gradients.
#include "support/short_runs.hpp"

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

/// A step's calls on the data axis, each with how many of the tensor axis came between its post and its end.
struct Step {
  struct Crossing {
    Verb verb{};
    Extent computed = 0;
    bool ended = false;
  };
  std::vector<Crossing> crossings{};
};
Step step_of(bool ahead) {
  Journal journal;
  Traffic traffic;
  Session session{recorded(dry_transport(0, 4), traffic, &journal)};
  const Mesh mesh{session, {.data = 2, .tensor = 2}};
  const auto model = make_gpt2({.vocabulary = vocabulary, .positions = length, .width = width, .heads = 2, .layers = 4});
  Weights weights{mesh, model, Recipe{ZeRO<3>{.ahead = ahead}}};
  Trainer trainer{weights, Sgd{.rate = 0.1}, TokenLoss{}, {.rows = length}};
  journal.events.clear();
  trainer.step({});
  Step step;
  std::vector<std::pair<Journal::Event, Extent>> open;
  for (const Journal::Event& e : journal.events) {
    if (e.call.axes == Axes::tensor && e.what == Journal::What::post)
      for (const auto& [posted, at] : open) ++step.crossings[at].computed;
    if (e.call.axes != Axes::data || (e.call.verb != Verb::all_gather && e.call.verb != Verb::reduce_scatter)) continue;
    if (e.what == Journal::What::post) {
      open.push_back({e, step.crossings.size()});
      step.crossings.push_back({e.call.verb});
    } else {
      const auto it = std::find_if(open.begin(), open.end(), [&](const auto& o) { return o.first.ticket == e.ticket && o.first.group == e.group; });
      step.crossings[it->second].ended = true;
      open.erase(it);
    }
  }
  return step;
}

}  // namespace

TEST_CASE("weights set off while the unit before computes, gradients come while the next one does") {
  const Step step = step_of(true);
  for (const Verb verb : {Verb::all_gather, Verb::reduce_scatter}) {
    INFO(name_of(verb));
    Extent all = 0, across = 0;
    for (const auto& c : step.crossings) {
      if (c.verb != verb) continue;
      CHECK(c.ended);
      ++all, across += c.computed > 0;
    }
    CHECK(all > 4);
    CHECK(across >= all / 2);
  }
}

TEST_CASE("a residency that doesn't look ahead waits at once") {
  const Step step = step_of(false);
  CHECK(step.crossings.size() == step_of(true).crossings.size());
  for (const auto& c : step.crossings) CHECK((c.ended && c.computed == 0));
}
