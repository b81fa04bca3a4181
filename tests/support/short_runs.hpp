// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A few steps in double of a small model of a test's own, on thread ranks: losses, norms, gradients, weights, and what was thrown.
///
///     const Layout two_stages{.degrees = {.pipe = 2}, .schedule = GPipe{}};
///     const ShortRun one = short_run(model, {}), two = short_run(model, two_stages);
///     CHECK(two.thrown == "");
///     CHECK(distance(two, one) <= 1e-12);
#pragma once

#include <dsx/dsx.hpp>

#include <map>

namespace dsx::test {

/// Of the models: 11 entries over 2 ranks are 6 and 5.
inline constexpr Extent vocabulary = 11, length = 8, width = 8;

struct Layout {
  Degrees degrees{};
  AnySharding sharding{};
  AnySchedule schedule = OneForwardOneBackward{};
  AnyRecompute recompute{};
  AnyOffload offload{};

  AnyRecipe recipe() const { return {sharding, schedule, offload, AnyPrecision{Fp64{}}, recompute}; }
  Extent micro_batches() const { return 4 / degrees.data; }  // a step is four sequences in the whole world
};

/// Sequence `number` of a run: what it says and how long it is follow from the number alone.
inline void add_sequence(MicroBatch& batch, Extent number, bool counted = true) {
  std::vector<int> ids, targets;
  for (Extent i = 0; i < 3 + number * 5 % (length - 2); ++i) {
    ids.push_back(int((number * 7 + i * 3 + i * i) % vocabulary));
    targets.push_back(counted ? int((number * 5 + i * 2 + i * i * i) % vocabulary) : -1);
  }
  batch.add(ids, targets, number % 4 * length);
}
/// This data rank's share of a step: sequence d x micro-batches + m is micro-batch m of data rank d.
inline std::vector<MicroBatch> batches_of(const Layout& layout, const Mesh& mesh, Extent step, bool counted = true) {
  std::vector<MicroBatch> all(layout.micro_batches());
  for (Extent m = 0; m < all.size(); ++m) add_sequence(all[m], 4 * step + mesh.coordinate(Axes::data) * all.size() + m, counted);
  return all;
}

using Tensors = std::map<std::string, std::vector<double>>;
template <class Weights>
Tensors tensors_of(const Weights& weights, Which which = {}) {
  Tensors all;
  for (const ParameterRecord& r : weights.records())
    if (r.trained || which.of == Which::Of::weight) all[r.path] = weights.template collect<double>(r.path, which);
  return all;
}

struct ShortRun {
  std::vector<double> losses{}, norms{};
  Tensors gradients{}, weights{};  // of the last step, and after it
  std::string thrown{};
  bool operator==(const ShortRun&) const = default;
};

struct NoLook {
  void operator()(auto&) const {}
};
inline constexpr Sgd usual_optimizer{.rate = 0.3, .momentum = 0.5};
inline constexpr auto usual_feed = [](const Layout& layout, const Mesh& mesh, Extent step) { return batches_of(layout, mesh, step); };
/// One rank of it. `feed(layout, mesh, step)` gives its micro-batches; `look(weights)` is called on every rank at the end.
template <class Model, class Optimizer, class Feed, class Objective = TokenLoss, class Look = NoLook>
void run_rank(Session& session, const Model& model, const Layout& layout, Extent steps, Optimizer optimizer, Feed feed, ShortRun& run,
              Objective objective = {}, Look look = {}) {
  const Mesh mesh{session, layout.degrees};
  Weights weights{mesh, model, layout.recipe()};
  Trainer trainer{weights, optimizer, objective, {.micro_batches = layout.micro_batches(), .rows = length}};
  for (Extent step = 0; step < steps; ++step) {
    const Verdict v = trainer.step(feed(layout, mesh, step));
    if (session.is_root()) run.losses.push_back(v.loss), run.norms.push_back(std::sqrt(v.squared_norm));
  }
  Tensors gradients = steps > 0 ? tensors_of(weights, {Which::Of::gradient}) : Tensors{}, values = tensors_of(weights);
  if (session.is_root()) run.gradients = std::move(gradients), run.weights = std::move(values);
  look(weights);
}
template <class Model, class Optimizer, class Feed, class Objective = TokenLoss, class Look = NoLook>
ShortRun short_run_of(const Model& model, const Layout& layout, Extent steps, Optimizer optimizer, Feed feed, Objective objective = {},
                      Look look = {}) {
  ShortRun run;
  try {
    launch_threads(layout.degrees.ranks(), [&](Session& session) { run_rank(session, model, layout, steps, optimizer, feed, run, objective, look); },
                   {.time_limit = std::chrono::seconds{60}});
  } catch (const std::exception& e) {
    run.thrown = e.what();
  }
  return run;
}
template <class Model, class Objective = TokenLoss, class Look = NoLook>
ShortRun short_run(const Model& model, const Layout& layout, Extent steps = 3, Objective objective = {}, Look look = {}) {
  return short_run_of(model, layout, steps, usual_optimizer, usual_feed, objective, look);
}

/// The largest difference of two numbers; a NaN, or a tensor that only one has, is infinitely far.
inline double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double most = a.size() == b.size() ? 0 : std::numeric_limits<double>::infinity();
  for (Extent i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double off = std::abs(a[i] - b[i]);
    most = off <= most ? most : std::isnan(off) ? std::numeric_limits<double>::infinity() : off;
  }
  return most;
}
inline double distance(const Tensors& a, const Tensors& b) {
  double most = a.size() == b.size() ? 0 : std::numeric_limits<double>::infinity();
  for (const auto& [path, values] : a) most = std::max(most, distance(values, b.contains(path) ? b.at(path) : std::vector<double>{}));
  return most;
}
inline double distance(const ShortRun& a, const ShortRun& b) {
  if (a.losses.empty()) return std::numeric_limits<double>::infinity();
  return std::max({distance(a.losses, b.losses), distance(a.norms, b.norms), distance(a.gradients, b.gradients), distance(a.weights, b.weights)});
}

/// The number of the error that f() throws; 0: none.
int number_of(const auto& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.number();
  }
  return 0;
}

}  // namespace dsx::test
