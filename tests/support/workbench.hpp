// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A graph of operations over a few parameters, run through a Pass in double as a trainer would run it: lifetimes learned dry,
/// arenas of exactly the planned size, filled with NaN before each run.
///
///     Workbench bench{mesh, {random({7, 6}), random({1, 6}, 1), random({1, 6})}, {3, 4}, [](Workbench& b) {
///       b.weigh(layer_norm(b.given<Common>(0), b.parameter(1), b.parameter(2)));
///     }};
///     CHECK(bench.gradient_error() < 1e-7);     // every parameter against central differences
///
/// An input is a parameter as well, handed in by given(); the loss is the sum of the output times fixed numbers, weigh().
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/pass/pass.hpp>
#include <dsx/weights/bundle.hpp>
#include <dsx/weights/initial.hpp>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>

namespace dsx::test {

/// A parameter whose elements start at random around `mean`.
inline Parameter random(Shape shape, float mean = 0, Split split = {}, float deviation = 0.5F) {
  Parameter p;
  p.shape = shape, p.init = {mean, deviation}, p.split = split;
  return p;
}
inline Parameter frozen(Parameter p) {
  p.trained = false;
  return p;
}

/// Rows of a parameter as a value: those of the micro-batch that a Common value holds here, or this rank's part.
template <class D>
struct Given : Operation {
  static constexpr const char* name = "given";
  Node y;
  Slot table;
  Axes partial;
  Range rows(Pass& p) const { return std::same_as<D, Common> ? p.tokens() : Range{0, p.shape(y).rows}; }
  void forward(Pass& p) const { p.launch(kernels::copy, p.weight(table).rows(rows(p)), p.view(y)); }
  void towards_inputs(Pass&) const {}
  void towards_weights(Pass& p) const {
    if (!p.trained(table)) return;
    const Grad g = p.weight_gradient(table, partial);
    if (!g.accumulate) p.launch(kernels::zero, g.view);
    p.launch(kernels::pass_on, p.incoming(y), Grad{g.view.rows(rows(p)), true});
  }
};

/// The sum of a value times fixed numbers, a function of row and column in the whole value; a rank's term of it where ranks hold parts.
template <class D>
struct Weigh : Operation {
  static constexpr const char* name = "weigh";
  static constexpr bool split_by_columns = std::same_as<D, Sharded>, term = std::same_as<D, Partial>, replicated = std::same_as<D, Replicated>;
  Node x, loss;
  std::uint64_t seed;

  /// Whether every rank holds the same value, so that the sum is complete on each.
  bool same_everywhere(Pass& p) const { return replicated || (std::same_as<D, Common> && !p.mesh().token_split()); }
  /// A replicated value's gradient is a term of a sum: the ranks share it out unevenly.
  static double share_of(Pass& p) {
    const double ranks = double(p.tensor().size());
    return replicated ? 2 * double(p.tensor().rank() + 1) / (ranks * (ranks + 1)) : 1;
  }
  double number(Pass& p, Extent row, Extent column) const {
    const Extent columns = p.shape(x).columns;
    if (std::same_as<D, Common>) row += p.tokens().begin;
    if (split_by_columns) column += p.tensor().rank() * columns;
    return 2 * double(uniform({.seed = seed}, row, std::uint32_t(column))) - 1;
  }
  void forward(Pass& p) const {
    const View from = p.view(x), to = p.view(loss);
    p.launch([&] {
      double sum = 0;
      for (Extent r = 0; r < from.shape.rows; ++r)
        for (Extent c = 0; c < from.shape.columns; ++c) sum += number(p, r, c) * from.at<double>(r, c);
      to.at<double>(0, 0) = sum;
    });
  }
  void towards_inputs(Pass& p) const {
    const View dloss = p.incoming(loss);
    const Grad dx = p.gradient(x);
    const double share = share_of(p);
    p.launch([&] {
      for (Extent r = 0; r < dx.view.shape.rows; ++r)
        for (Extent c = 0; c < dx.view.shape.columns; ++c) {
          double& to = dx.view.at<double>(r, c);
          to = (dx.accumulate ? to : 0) + dloss.at<double>(0, 0) * share * number(p, r, c);
        }
    });
  }
};

class Workbench {
 public:
  using Graph = std::function<void(Workbench&)>;

  /// `lengths`: of the sequences. Plans are made for `spare` rows more than there are.
  Workbench(const Mesh& mesh, std::vector<Parameter> parameters, const std::vector<Extent>& lengths, Graph graph, Extent spare = 2,
            bool recording = true)
      : mesh_{&mesh}, parameters_{std::move(parameters)}, graph_{std::move(graph)}, recording_{recording} {
    begin_.push_back(0);
    for (const Extent length : lengths) {
      for (Extent i = 0; i < length; ++i) {
        const Extent row = ids.size();
        ids.push_back(int(row * 5 % 7)), targets.push_back(row % 4 == 3 ? -1 : int(row * 3 % 7)), positions_.push_back(int(i)),
            row_ids_.push_back(100 + row);
      }
      begin_.push_back(std::uint32_t(ids.size()));
    }
    bound_ = ids.size() + spare;
    for (Slot s = 0; s < parameters_.size(); ++s) {
      Parameter& p = parameters_[s];
      p.slot = s;
      InitialValues values{"parameter " + std::to_string(s), 7, p.init};
      auto& whole = wholes.emplace_back();
      for (Extent i = 0; i < p.whole().size(); ++i) whole.push_back(values[i]);
    }
    rehearse();
    hold();
  }
  Workbench(const Workbench&) = delete;
  Workbench& operator=(const Workbench&) = delete;

  // ---- what graphs use
  Pass& pass() { return *pass_; }
  const Parameter& parameter(Slot slot) const { return parameters_[slot]; }
  template <class D>
  Value<D> given(Slot slot) {
    const auto y = pass_->make<D>(pass_->weight(slot).shape.columns);
    pass_->run(Given<D>{{}, y.node, slot, pass_->partial<D>(slot)});
    return y;
  }
  template <class D>
  void weigh(Value<D> x, double weight = 1, std::uint64_t seed = 3) {
    const Node loss = pass_->make_scalar(Element::f64);
    const Weigh<D> sum{{}, x.node, loss, seed};
    pass_->run(sum);
    pass_->add_loss(loss, weight, sum.same_everywhere(*pass_) ? Axes::none : Axes::tensor);
  }
  /// A new unit begins; what is read from now on has been carried over.
  void cut() {
    pass_->leave_unit();
    pass_->enter(++unit_, *binding_);
  }

  // ---- what tests use
  /// The loss; with `backward` the gradients are left in gradient().
  double run(bool backward) {
    for (Held& h : held_) h.touched = false;
    poison(pass_->saved, saved_), poison(mesh_->session().memory.scratch, scratch_);
    play(backward);
    mesh_->along(Axes::tensor).all_reduce({&loss_, {1, 1}, Element::f64}).wait();
    return loss_;
  }
  /// The whole gradient of a parameter after run(true), on every rank.
  std::vector<double> gradient(Slot slot) {
    const Held& h = held_[slot];
    const LocalPart part = part_on(*mesh_, parameters_[slot]);
    std::vector<double> whole(parameters_[slot].whole().size());
    if (h.touched)
      for (Extent i = 0; i < h.gradient.size(); ++i) whole[part.whole_index(i)] = h.gradient.pointer<double>()[i];
    if (h.split || any(h.partial)) mesh_->along(Axes::tensor).all_reduce({whole.data(), {whole.size(), 1}, Element::f64}).wait();
    return whole;
  }
  /// The largest distance of a gradient from central differences, relative to the parameter's largest, over all trained parameters.
  double gradient_error(double step = 1e-5) {
    run(true);
    std::vector<std::vector<double>> gradients;
    for (Slot s = 0; s < parameters_.size(); ++s) gradients.push_back(gradient(s));
    double worst = 0;
    for (Slot s = 0; s < parameters_.size(); ++s) {
      if (!parameters_[s].trained) continue;
      double most = 0, largest = 0;
      for (Extent i = 0; i < wholes[s].size(); ++i) {
        const double middle = wholes[s][i];
        wholes[s][i] = middle + step, hold();
        const double above = run(false);
        wholes[s][i] = middle - step, hold();
        const double below = run(false);
        wholes[s][i] = middle, hold();
        const double slope = (above - below) / (2 * step), difference = std::abs(slope - gradients[s][i]);
        most = std::isfinite(difference) ? std::max(most, difference) : std::numeric_limits<double>::infinity();
        largest = std::max(largest, std::abs(slope));
      }
      if (largest == 0) return std::numeric_limits<double>::infinity();  // a check that can't fail
      worst = std::max(worst, most / largest);
    }
    return worst;
  }
  bool has(Slot slot) const { return slot < held_.size(); }
  Held& held(Slot slot) { return held_[slot]; }
  const Lifetimes& lifetimes() const { return lives_; }
  Extent saved_bytes() const { return saved_; }
  std::vector<double> read(Node node) {
    const View v = pass_->view(node);
    return {v.pointer<double>(), v.pointer<double>() + v.size()};
  }

  std::vector<int> ids{}, targets{};                    // of the batch, by row
  std::vector<std::vector<double>> wholes{};            // of each parameter
  std::function<void(Pass&)> prepare = [](Pass&) {};    // before each run, the dry ones left out

 private:
  std::vector<Held> make_held(const Mesh& mesh) {
    std::vector<Held> held;
    for (const Parameter& p : parameters_) {
      const View weight = mesh.session().memory.keep(Category::weights, part_on(mesh, p).local, Element::f64);
      Held h{.weight = weight, .gradient = weight, .split = cut_by_tensor(p), .stack = part_on(mesh, p).stack.size(), .trained = p.trained};
      h.gradient = p.trained ? mesh.session().memory.keep(Category::gradients, weight.shape, Element::f64) : View{};
      held.push_back(h);
    }
    return held;
  }
  /// Every rank takes what lies on it of the whole weights.
  void hold() {
    for (Slot s = 0; s < parameters_.size(); ++s) {
      const LocalPart part = part_on(*mesh_, parameters_[s]);
      for (Extent i = 0; i < held_[s].weight.size(); ++i) held_[s].weight.pointer<double>()[i] = wholes[s][part.whole_index(i)];
    }
  }
  void play(bool backward) {
    const bool dry = pass_->dry();
    pass_->close();
    unit_ = 0;
    pass_->open(dry ? Batch{.bound = bound_} : Batch{ids, targets, positions_, row_ids_, {begin_}, bound_}, 0, 0);
    if (!dry) prepare(*pass_);
    pass_->enter(0, *binding_);
    graph_(*this);
    pass_->leave_unit();
    if (backward)
      for (Unit u = unit_ + 1; u-- > 0;) pass_->pull_unit(u, *binding_);
    loss_ = pass_->loss;  // a replay counts nothing
    pass_->close();
  }
  void rehearse() {
    const PassOptions options{Element::f64, 11, recording_};
    Session twin = mesh_->session().dry_twin();
    const Mesh dry_mesh{twin, mesh_->degrees()};
    Pass dry{dry_mesh, lives_, options};
    std::vector<Held> held = make_held(dry_mesh);
    Binding binding;
    for (Held& h : held) binding.parameters.push_back(&h);
    pass_ = &dry, binding_ = &binding;
    const auto before = twin.memory.peaks();
    play(recording_);
    lives_.known = true;
    twin.memory.forget_since(before), dry.saved.forget_peak();
    play(recording_);
    Memory& memory = mesh_->session().memory;
    memory.reserve_as(twin.memory);
    saved_ = dry.saved.peak(), scratch_ = twin.memory.scratch.peak();
    real_.emplace(*mesh_, lives_, options);
    real_->saved.reserve(saved_);
    held_ = make_held(*mesh_);
    for (Held& h : held_) bindings_.parameters.push_back(&h);
    pass_ = &*real_, binding_ = &bindings_;
  }
  static void poison(Stack& stack, Extent bytes) {
    const View all = stack.take({bytes, 1}, Element::u8);
    if (bytes) std::memset(all.data, 0xFF, bytes);
    stack.pop(0);
  }

  const Mesh* mesh_;
  std::vector<Parameter> parameters_;
  Graph graph_;
  bool recording_;
  std::vector<int> positions_{};
  std::vector<RowId> row_ids_{};
  std::vector<std::uint32_t> begin_{};
  Extent bound_ = 0, saved_ = 0, scratch_ = 0;
  Lifetimes lives_{};
  std::optional<Pass> real_{};
  Pass* pass_ = nullptr;
  std::vector<Held> held_{};
  Binding bindings_{};
  Binding* binding_ = nullptr;
  Unit unit_ = 0;
  double loss_ = 0;
};

/// The answer of `what(mesh)` on one rank alone.
template <class What>
auto on_one_rank(const What& what) {
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  return what(mesh);
}
/// The answers of `what(mesh)` on thread ranks folded as `degrees`.
template <class What>
auto on_ranks(Degrees degrees, const What& what) {
  std::vector<decltype(what(std::declval<const Mesh&>()))> answers(degrees.ranks());
  launch_threads(degrees.ranks(), [&](Session& session) {
    const Mesh mesh{session, degrees};
    answers[session.rank()] = what(mesh);
  });
  return answers;
}

}  // namespace dsx::test
