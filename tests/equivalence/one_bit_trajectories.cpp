// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// TRAJ of 1-bit Adam: clipped steps in double of a small tied Llama over data x tensor x pipe x accumulation x MiCS x offload on thread ranks,
/// against one process that computes each data rank's gradient in turn and sums signs as the paper says. Bytes and wire by the formula.
// labels: traj bytes wire
// timeout: 600
#include "support/runs.hpp"
#include "support/signs.hpp"

#include <dsx/models/llama.hpp>

#include <doctest/doctest.h>

#include <set>

using namespace toy;

namespace {

constexpr Extent count = 13, freeze_step = 5;  // the last step's rows are all live
const OneBitAdam rule{.rate = 3e-3, .epsilon = 1e-6, .decay = 0.1, .freeze_step = freeze_step};

/// No biases: a key's has no gradient but rounding noise, whose signs would be another run's.
Llama make() {
  return make_llama({.vocabulary = vocabulary,
                     .width = 12,
                     .heads = 6,
                     .key_value_heads = 3,
                     .head_dim = 4,
                     .layers = blocks,
                     .hidden = 21,
                     .rope = {.base = 100},
                     .tied = true,
                     .attention_dropout = 0.1});
}

/// What is summed under one scale: some elements of a parameter, over groups of data ranks.
struct Piece {
  std::string path;
  std::vector<Extent> whole;  // elements of the whole parameter
  bool decays;
  std::vector<std::set<Extent>> terms;  // the data ranks whose gradients each of the ranks that sum holds together
};
std::vector<Piece> pieces_of(const Cell& c) {
  std::map<std::pair<std::string, std::vector<Extent>>, Axes> found;
  std::map<std::string, bool> decays;
  std::map<Axes, std::vector<std::set<Extent>>> terms;
  for (Rank r = 0; r < c.ranks(); ++r) {
    Session dry = Session::dry(r, c.ranks());
    const Mesh mesh{dry, c.degrees};
    const Weights weights{mesh, make(), recipe_of(c)};
    for (const Bundle& b : weights.bundles().all()) {
      const Axes axes = Axes::data - cuts_of(c.sharding).state;
      terms[axes].resize(mesh.size(axes));
      terms[axes][mesh.coordinate(axes)].insert(mesh.coordinate(Axes::data));
      for (const Segment& s : b.segments) {
        const Range here = overlap(s.range(), b.mine);
        std::vector<Extent> whole;
        for (Extent i = here.begin; i < here.end; ++i) whole.push_back(s.part.whole_index(i - s.offset));
        if (!whole.empty()) found[{s.path, whole}] = axes, decays[s.path] = b.kind.role != Role::vector;
      }
    }
  }
  std::vector<Piece> all;
  for (const auto& [what, axes] : found) all.push_back({what.first, what.second, decays.at(what.first), terms.at(axes)});
  return all;
}

/// One process in the place of all: losses, norms and weights of the run that `c` describes.
Run reference(const Cell& c) {
  using Tensors = std::map<std::string, std::vector<double>>;
  Run run;
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  Weights weights{mesh, make(), recipe_of(Cell{})};
  TrainerOptions options = options_of(c);
  options.clip = 0;
  Trainer probe{weights, Sgd{}, TokenLoss{.chunk = 10}, options};
  const auto pieces = pieces_of(c);
  std::vector<test::SignSum> sums;
  for (const Piece& p : pieces) sums.emplace_back(p.whole.size(), p.terms.size());
  Tensors x, m, v;
  for (const ParameterRecord& r : weights.records())
    x[r.path] = weights.weight<double>(r.path), m[r.path].resize(r.shape.size()), v[r.path].resize(r.shape.size());

  for (Extent step = 0; step < count; ++step) {
    std::vector<Tensors> gradients(c.degrees.data);  // each data rank's term
    std::vector<double> targets(c.degrees.data);
    double all_targets = 0, loss = 0;
    for (Extent d = 0; d < c.degrees.data; ++d) {
      const auto batches = c.feed()(step, d);
      for (const MicroBatch& b : batches) targets[d] += TokenLoss{}.counts(b.view(options.rows)).targets;
      all_targets += targets[d];
      probe.resume_at(step);
      if (targets[d] > 0) probe.accumulate(batches), loss += probe.verdict().loss * targets[d];
      for (const auto& [path, values] : x) gradients[d][path] = targets[d] > 0 ? weights.gradient<double>(path) : std::vector<double>(values.size());
    }
    for (Extent d = 0; d < c.degrees.data; ++d)
      for (auto& [path, g] : gradients[d])
        for (double& one : g) one *= targets[d] / all_targets;
    run.losses.push_back(loss / all_targets);

    const bool exact = step < freeze_step;
    const auto term = [&](const Piece& p, Extent k, Extent i) {
      double sum = 0;
      for (const Extent d : p.terms[k]) sum += gradients[d][p.path][p.whole[i]];
      return sum;
    };
    double squares = 0;
    for (const Piece& p : pieces)
      for (Extent i = 0; i < p.whole.size(); ++i) {
        double sum = 0, of_squares = 0;
        for (Extent k = 0; k < p.terms.size(); ++k) sum += term(p, k, i), of_squares += std::pow(term(p, k, i), 2);
        squares += exact ? sum * sum : double(p.terms.size()) * of_squares;
      }
    run.norms.push_back(std::sqrt(squares));
    const double scale = std::min(1.0, clip / (std::sqrt(squares) + 1e-6));

    for (Extent number = 0; number < pieces.size(); ++number) {
      const Piece& p = pieces[number];
      const double ranks = double(p.terms.size());
      std::vector<std::vector<double>> momenta;  // each rank's term of the new one
      for (Extent k = 0; k < p.terms.size(); ++k) {
        auto& mine = momenta.emplace_back();
        for (Extent i = 0; i < p.whole.size(); ++i)
          mine.push_back(rule.beta_1 / ranks * m[p.path][p.whole[i]] + (1 - rule.beta_1) * scale * term(p, k, i));
      }
      std::vector<double> sum(p.whole.size());
      if (exact || ranks == 1)
        for (const auto& mine : momenta)
          for (Extent i = 0; i < sum.size(); ++i) sum[i] += mine[i];
      else
        sum = sums[number](momenta);
      for (Extent i = 0; i < p.whole.size(); ++i) {
        double &w = x[p.path][p.whole[i]], &first = m[p.path][p.whole[i]], &second = v[p.path][p.whole[i]], g = 0;
        for (Extent k = 0; k < p.terms.size(); ++k) g += scale * term(p, k, i);
        if (exact) second = rule.beta_2 * second + (1 - rule.beta_2) * g * g;
        first = exact || second != 0 ? sum[i] : 0;
        w -= rule.rate * (first / (std::sqrt(second) + rule.epsilon) + (p.decays ? rule.decay * w : 0));
      }
    }
    for (const auto& [path, values] : x) weights.assign(path, std::span<const double>{values});
  }
  for (const ParameterRecord& r : weights.records()) run.weights.push_back({r.path, x[r.path]});
  return run;
}

/// State and wire of a compressed step by the formula, and all bytes by the dry plan.
template <class Weights>
void check_against_formulas(const Cell& c, const Weights& weights, const Traffic& step, const Session& session, Complaints& complaints) {
  const auto buffer = [](Extent elements, Element e) { return round_up(elements * bytes_of(e), 64); };
  const auto up = [](Extent n, Extent by) { return (n + by - 1) / by; };
  const Mesh& mesh = weights.mesh();
  const Axes axes = Axes::data - cuts_of(c.sharding).state;
  const Extent ranks = mesh.size(axes);
  Extent state = 0, wire = 0;
  for (const Bundle& b : weights.bundles().all()) {
    Extent of_part = 0;
    for (const Segment& s : b.segments) {
      const Extent n = overlap(s.range(), b.mine).size(), each = up(n, ranks);
      if (n > 0)
        wire += (ranks - 1) * (4 + up(each, 8)),
            of_part += std::min(n, (mesh.coordinate(axes) + 1) * each) - std::min(n, mesh.coordinate(axes) * each);
    }
    const bool own_master = c.elements.master != c.elements.value || c.tier(Kind::state) != c.tier(Kind::weights);
    state += Extent(own_master + 2 + (ranks > 1)) * buffer(b.mine.size(), c.elements.master) + (ranks > 1) * buffer(of_part, c.elements.master);
  }
  const auto compare = [&](const char* what, double measured, double formula) {
    if (measured != formula) complaints.add(what, " on rank ", session.rank(), ": ", measured, ", the formula says ", formula);
  };
  compare("state", double(session.memory.tally(Category::state, c.tier(Kind::state)).peak), double(state));
  compare("all-to-all", step.wire_bytes(Verb::all_to_all, axes), double(ranks > 1 ? wire : 0));
  compare("all-gather", step.wire_bytes(Verb::all_gather, axes), double(ranks > 1 ? wire : 0));
  compare("numbers that are summed", double(step.elements(Verb::all_reduce, axes)), axes == Axes::data && ranks > 1 ? 2 : 0);

  Session dry = Session::dry(session.rank(), session.ranks());
  const Mesh dry_mesh{dry, c.degrees};
  dsx::Weights dry_weights{dry_mesh, make(), recipe_of(c)};
  const Trainer plan{dry_weights, rule, TokenLoss{.chunk = 10}, options_of(c)};
  check_wire(Wire::of(step), Wire::of(dry.traffic), "the plan", session.rank(), count - 1, complaints);
  for (const Tier tier : {Tier::device, Tier::host, Tier::disk})
    for (Extent k = 0; k < categories; ++k)
      compare("peak bytes", double(session.memory.tally(Category(k), tier).peak), double(dry.memory.tally(Category(k), tier).peak));
}

Run train_one_bit(const Cell& c) {
  Run run;
  Complaints complaints;
  const auto rank = [&](Session& session) {
    const Mesh mesh{session, c.degrees};
    Weights weights{mesh, make(), recipe_of(c)};
    Trainer trainer{weights, rule, TokenLoss{.chunk = 10}, options_of(c)};
    for (Extent step = 0; step < count; ++step) {
      session.traffic.clear();
      const Verdict v = trainer.step(c.feed()(step, mesh.coordinate(Axes::data)));
      if (session.is_root()) run.losses.push_back(v.loss), run.norms.push_back(std::sqrt(v.squared_norm));
    }
    check_against_formulas(c, weights, session.traffic, session, complaints);
    for (const ParameterRecord& r : weights.records()) {
      auto w = weights.template weight<double>(r.path);
      if (session.is_root()) run.weights.push_back({r.path, std::move(w)});
    }
  };
  try {
    launch_threads(c.ranks(), [&](Session& session) {
      if (c.resident()) return rank(session);
      Session bounded{session.world(), dsx::Place::cpu, {.device_bytes = 64_MiB}};  // off the device memory is closed
      rank(bounded);
    }, {.time_limit = std::chrono::seconds{60}});
  } catch (const std::exception& e) {
    complaints.add(e.what());
  }
  run.complaints = complaints.take();
  return run;
}

Cell cell(Degrees degrees, Extent micro_batches = 1, Schedule schedule = Schedule::single) {
  return {Sharding::replicate, degrees, schedule, micro_batches, false, Rule::adamw};
}
void check_cell(const Cell& c) {
  const Run run = train_one_bit(c);
  CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints));
  const Run expected = reference(c);
  REQUIRE(expected.losses.size() == count);
  CHECK(*std::min_element(expected.norms.begin(), expected.norms.end()) > clip);
  const double off = distance(run, expected);
  CHECK_MESSAGE(off <= 1e-9, name_of(c) << " lies " << off << " from the reference");
}

}  // namespace

TEST_CASE("1-bit Adam over 1, 2, 4 and 8 data ranks, with accumulation, equals a process that plays all ranks") {
  for (const Extent data : {1, 2, 4, 8})
    for (const Extent micro_batches : {1, 2})
      if (data * micro_batches <= sequences) check_cell(cell({.data = data}, micro_batches));
}

TEST_CASE("1-bit Adam over data ranks of tensor and pipeline axes equals a process that plays all ranks") {
  const auto pipe = Schedule::one_forward_one_backward;
  check_cell(cell({.data = 2, .tensor = 2}));
  check_cell(cell({.data = 2, .tensor = 2, .token_split = true}, 2));
  check_cell(cell({.data = 2, .pipe = 2}, 2, pipe));
  check_cell(cell({.data = 4, .pipe = 2}, 2, Schedule::gpipe));
  check_cell(cell({.data = 2, .tensor = 2, .pipe = 2, .token_split = true}, 4, pipe));
}

TEST_CASE("1-bit Adam between groups of ranks that cut its state equals a process that plays all ranks") {
  Cell near = cell({.data = 4, .inner = 2}, 2);
  near.sharding = Sharding::mics;
  check_cell(near);
  near.degrees.tensor = 2, near.recompute = true;
  check_cell(near);
}

TEST_CASE("1-bit Adam equals a process that plays all ranks wherever its state, gradients and weights rest") {
  for (const Tier tier : {Tier::host, Tier::disk})
    for (const auto& kinds : {std::vector{Kind::state}, {Kind::gradients}, {Kind::state, Kind::gradients, Kind::weights, Kind::activations}}) {
      Cell c = cell({.data = 2}, 2);
      for (const Kind k : kinds) c.rests[Extent(k)] = tier;
      check_cell(c);
    }
}

TEST_CASE("1-bit Adam in bfloat16 follows its run in double") {
  for (const Degrees degrees : {Degrees{.data = 4}, Degrees{.data = 2, .tensor = 2}}) {
    Cell c = cell(degrees);
    const Run exact = train_one_bit(c);
    c.elements = Bf16{}.elements();
    const Run run = train_one_bit(c);
    CHECK_MESSAGE(run.complaints.empty(), name_of(c) << text_of(run.complaints));
    REQUIRE(run.losses.size() == count);
    for (Extent i = 0; i < count; ++i) CHECK(std::abs(run.losses[i] / exact.losses[i] - 1) <= 5e-3);
  }
}
