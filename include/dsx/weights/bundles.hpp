// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// All bundles of a stage. A unit's life in a step: acquire (gather) -> compute -> release, and in backward acquire ->
/// compute -> close (reduce) -> release; then once for all: finish (the last reductions), the update, publish.
///
///     bundles.acquire(unit, Direction::forward, next);       // the next unit's weights set off
///     pass.enter(unit, bundles.binding(unit)); ... pass.leave_unit();
///     bundles.release(unit);
///
/// Neighbouring units take turns in the arenas: at most two have their weights gathered, and two their gradients.
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/kernels/optimizer.hpp>
#include <dsx/weights/bundle.hpp>
#include <dsx/weights/initial.hpp>

#include <array>
#include <limits>
#include <optional>

namespace dsx {

enum class Direction : std::uint8_t { forward, backward };

/// Which of a parameter's tensors is meant.
struct Which {
  enum class Of : std::uint8_t { weight, gradient, state };
  Of of = Of::weight;
  Extent state = 0;
};

class Bundles {
 public:
  explicit Bundles(const Mesh& mesh) : mesh_{&mesh}, session_{&mesh.session()}, memory_{&session_->memory} {}

  /// The stages that share a tied parameter; `order` is the same on all of them.
  struct Tie {
    Communicator stages{};
    bool first_stage = true;
    Extent order = 0;
  };
  /// Adds a parameter to its class.
  void add(Unit unit, const std::string& path, const Parameter& p, Axes partial, const Tie& tie, const Elements& elements, auto& sharding);
  void add(Unit unit, const std::string& path, const Buffer& b, Element element);
  /// Every parameter of the model's `units` is in: pads, checks and allocates.
  void settle(std::uint64_t seed, Extent units);
  /// The next slot of `unit` is this parameter's.
  void bind(Unit unit, const std::string& path);

  Binding& binding(Unit unit) { return bindings_[unit]; }
  /// Gathers a unit's weights; those of `next`, the unit that computes after it, set off where their residency lets them.
  void acquire(Unit, Direction, std::optional<Unit> next = {});
  /// Backward through the unit has ended: its gradients set off.
  void close(Unit);
  void release(Unit);
  void begin_step();
  /// Lets go of everything that is under way, after an exception.
  void abandon();
  void finish();
  void publish();
  double squared_norm() const;
  /// The path of the first parameter whose gradient on this rank isn't finite; empty if all are.
  std::string first_not_finite() const;

  std::deque<Bundle>& all() { return bundles_; }
  const std::deque<Bundle>& all() const { return bundles_; }

  /// Gives the elements that lie here of a whole tensor to `set(view, element of it, element of the whole)`.
  template <class T>
  void assign(const std::string& path, std::span<const T> whole, Which which = {});
  /// This rank's counted elements of a tensor; a sum over the world makes it whole.
  template <class T>
  std::vector<T> collect(const std::string& path, Extent size, Which which = {}) const;

  /// A buffer's merged value on this stage; no data elsewhere.
  View buffer(const std::string& path) const {
    for (const NamedBuffer& b : buffers_)
      if (b.path == path) return b.held.value;
    return {};
  }

 private:
  struct NamedBuffer {
    Unit unit;
    std::string path;
    Buffer buffer;
    HeldBuffer held{};
  };
  Bundle& find(Unit, const ParameterInfo&, const std::string& tie);
  Range part(const Bundle& b, Axes axes) const { return mesh_->part(axes, b.size); }
  void check(const Bundle&) const;
  /// Whether a slice over `part` contains those over the larger set `whole`: its axes are the most significant of a coordinate.
  bool contains_slices(Axes part, Axes whole) const {
    bool behind = false;
    for (const Axes axis : {Axes::inner, Axes::outer, Axes::expert_inner, Axes::expert_outer, Axes::expert}) {
      if (!within(axis, whole) || mesh_->size(axis) == 1) continue;
      if (!within(axis, part)) behind = true;
      else if (behind) return false;
    }
    return true;
  }
  /// One bundle of a unit on its way to the whole, or from there to the parts of it.
  struct Journey {
    Bundle* bundle;
    View whole;
    Lease lease{};
  };
  /// The weights of a unit that computes or will be the next to, and the gradients of one that was the last.
  struct Turn {
    std::optional<Unit> unit{}, closed{};
    std::vector<Journey> weights{}, gradients{};  // of `unit`, of `closed`
    Extent gathered_before = 0, reducing_before = 0;
  };
  Turn& turn_of(Unit unit) { return turns_[unit % 2]; }
  void fetch(Unit, Direction, bool ahead);
  void reduced(Turn&);
  void start(Bundle&, std::uint64_t seed);
  void bring_gradient(Bundle&, Unit);
  void zero_untouched(Bundle&, const View& gradient);
  void add_up(Bundle&, const View& mine);
  void where_gradients_rest(const Bundle&, const View& gradient, auto f);
  void merge_buffers();
  View tensor(const Bundle& b, Which which) const {
    return which.of == Which::Of::weight ? b.master() : which.of == Which::Of::gradient ? b.reduced : b.states[which.state];
  }

  const Mesh* mesh_;
  Session* session_;
  Memory* memory_;
  std::deque<Bundle> bundles_{};
  std::deque<NamedBuffer> buffers_{};
  std::vector<Binding> bindings_{};
  std::vector<Bundle*> tied_{};  // over stages, in the order that all of them keep
  std::vector<std::vector<Bundle*>> of_unit_{};
  std::array<Turn, 2> turns_{};
};

inline void Bundles::add(Unit unit, const std::string& path, const Parameter& p, Axes partial, const Tie& tie, const Elements& elements,
                         auto& sharding) {
  const ParameterInfo info{p.tie, p.whole(), p.cut_over(), (p.stack > 1 ? Axes::expert_data : Axes::data) | partial, p.role, p.trained};
  Bundle& bundle = find(unit, info, std::string{p.tie});
  if (bundle.segments.empty()) {
    bundle.elements = elements;
    bundle.where = sharding.residency(info, *mesh_);
    bundle.stages = tie.stages, bundle.first_stage = tie.first_stage, bundle.tie_order = tie.order;
  }
  if (!p.tie.empty() && !bundle.segments.empty()) return;  // another use of the same parameter
  auto& s = bundle.segments.emplace_back(Segment{path, part_on(*mesh_, p), p.init, bundle.size});
  s.held.split = cut_by_tensor(p), s.held.stack = s.part.stack.size(), s.held.trained = p.trained;
  bundle.size += s.part.local.size();
}

inline void Bundles::add(Unit unit, const std::string& path, const Buffer& b, Element element) {
  NamedBuffer& named = buffers_.emplace_back(NamedBuffer{unit, path, b});
  named.held.value = memory_->keep(Category::state, {1, b.size}, element);
  named.held.update = memory_->keep(Category::gradients, {1, b.size}, element);
  session_->edit(named.held.value, [&](View v) {
    dispatch(v.element, [&](auto zero) { std::fill_n(v.pointer<decltype(zero)>(), v.size(), decltype(zero)(b.start)); });
  });
}

inline Bundle& Bundles::find(Unit unit, const ParameterInfo& info, const std::string& tie) {
  for (Bundle& b : bundles_) {
    const bool same_class =
        b.kind.split_over == info.split_over && b.kind.summed_over == info.summed_over && b.kind.role == info.role && b.kind.trained == info.trained;
    if (b.tie != tie || (tie.empty() && b.units.front() != unit)) continue;
    if (!tie.empty() && !same_class)
      fail<404>("the uses of tied parameter ", tie, " sum its gradient over ", to_text(b.kind.summed_over), " and over ", to_text(info.summed_over));
    if (!same_class) continue;
    if (b.units.back() != unit) b.units.push_back(unit);
    return b;
  }
  Bundle& b = bundles_.emplace_back(Bundle{.kind = info, .where = {}, .elements = {}, .tie = tie});
  b.kind.path = b.tie;
  b.units.push_back(unit);
  return b;
}

inline void Bundles::check(const Bundle& b) const {
  const auto [forward, backward, gradients, state, ahead] = b.where;
  if (!within(forward | gradients, state) || !within(state, b.kind.summed_over - Axes::tensor))
    fail<103>("weights at rest (", to_text(forward), ") and gradients (", to_text(gradients), ") may be cut only over axes that cut the state (",
              to_text(state), "), and the state only over axes that sum gradients (", to_text(b.kind.summed_over), ")");
  for (const Axes part : {forward, gradients})
    if (!contains_slices(part, state))
      fail<104>(part == forward ? "weights at rest over " : "gradients over ", to_text(part), " and state over ", to_text(state),
                " don't nest; cut over inner before outer");
}

inline void Bundles::settle(std::uint64_t seed, Extent units) {
  bindings_.resize(units), of_unit_.resize(units);
  const Extent multiple = mesh_->size(Axes::data) * mesh_->size(Axes::tensor);
  for (Bundle& b : bundles_) {
    check(b);
    const auto [forward, backward, gradients, state, ahead] = b.where;
    b.size = round_up(b.size, multiple);
    b.resting = part(b, forward), b.mine = part(b, state);
    const Axes replicas = (b.kind.summed_over | Axes::tensor) - state - b.kind.split_over;
    b.counted = b.first_stage ? share(b.mine, mesh_->size(replicas), mesh_->coordinate(replicas)) : Range{};
    b.rest = memory_->keep(Category::weights, {b.resting.size(), 1}, b.elements.value, b.tier(Kind::weights));
    if (forward != backward) b.near = memory_->keep(Category::weights, {part(b, backward).size(), 1}, b.elements.value, b.tier(Kind::weights));
    if (b.kind.trained) {
      if (b.has_own_master()) b.own_master = memory_->keep(Category::state, {b.mine.size(), 1}, b.elements.master, b.tier(Kind::state));
      const auto keep = [&](Extent size) { return memory_->keep(Category::gradients, {size, 1}, b.elements.gradient, b.tier(Kind::gradients)); };
      if (mesh_->size(gradients) > 1) b.gradient_part = keep(part(b, gradients).size());
      if (b.keeps_gradient()) (b.away(Kind::gradients) ? b.gradient_at_rest : b.gradient) = keep(b.size);
    }
    if (!memory_->dry()) start(b, seed);
    if (b.stages.size() > 1 && b.kind.trained) tied_.push_back(&b);
    for (const Unit u : b.units) of_unit_[u].push_back(&b);
  }
  std::sort(tied_.begin(), tied_.end(), [](const Bundle* a, const Bundle* b) { return a->tie_order < b->tie_order; });
}

inline void Bundles::start(Bundle& b, std::uint64_t seed) {
  for (const Segment& s : b.segments) {
    const auto fill = [&](View all, Range range) {
      InitialValues values{s.path, seed, s.init};
      const Range here = overlap(s.range(), range);
      session_->edit(all.part({here.begin - range.begin, here.end - range.begin}), [&](View to) {
        dispatch(to.element, [&](auto zero) {
          using T = decltype(zero);
          for (Extent i = here.begin; i < here.end; ++i) to.pointer<T>()[i - here.begin] = T(values[s.part.whole_index(i - s.offset)]);
        });
      });
    };
    fill(b.rest, b.resting);
    if (b.own_master.size()) fill(b.own_master, b.mine);
  }
}

inline void Bundles::bind(Unit unit, const std::string& path) {
  for (Bundle& b : bundles_)
    for (Segment& s : b.segments)
      if (s.path == path) bindings_[unit].parameters.push_back(&s.held);
  for (NamedBuffer& b : buffers_)
    if (b.path == path && b.unit == unit) bindings_[unit].buffers.push_back(&b.held);
}

/// Sets off with the weights of `unit`, once: before its turn those alone that may.
inline void Bundles::fetch(Unit unit, Direction direction, bool ahead) {
  Turn& turn = turn_of(unit);
  const bool begun = turn.unit == unit;
  if (!begun) turn.unit = unit, turn.gathered_before = memory_->gathered.top(unit);
  for (Bundle* b : of_unit_[unit]) {
    if ((begun && b->where.ahead) || (ahead && !b->where.ahead)) continue;
    const bool near = direction == Direction::backward && b->where.forward != b->where.backward;
    const View at_rest = near ? b->near : b->rest;
    const Axes axes = direction == Direction::backward ? b->where.backward : b->where.forward;
    Journey& journey = turn.weights.emplace_back(Journey{b, at_rest});
    const bool away = b->away(Kind::weights);
    if (mesh_->size(axes) == 1 && !away) continue;
    journey.whole = memory_->gathered.take(unit, {b->size, 1}, b->elements.value);
    const View mine = away ? journey.whole.part(part(*b, axes)) : at_rest;
    if (away) session_->move(at_rest, mine);
    if (mesh_->size(axes) > 1) journey.lease = mesh_->along(axes).all_gather(mine, journey.whole);
  }
}

inline void Bundles::acquire(Unit unit, Direction direction, std::optional<Unit> next) {
  const bool backward = direction == Direction::backward;
  fetch(unit, direction, false);
  if (next) {
    fetch(*next, direction, true);
    if (const Unit behind = *next + *next - unit; behind < of_unit_.size())
      for (const Bundle* b : of_unit_[behind]) memory_->ahead(backward && b->near.size() ? b->near : b->rest);
  }
  Turn& turn = turn_of(unit);
  if (backward)
    for (Turn& t : turns_)
      if (&t == &turn || t.closed != unit + 1) reduced(t);
  if (backward) turn.reducing_before = memory_->reducing.top(unit);
  for (auto& [bundle, whole, lease] : turn.weights) {
    Bundle& b = *bundle;
    lease.wait();
    if (!backward && b.where.forward != b.where.backward) {
      const View mine = whole.part(part(b, b.where.backward));
      b.away(Kind::weights) ? session_->move(mine, b.near) : session_->launch(kernels::copy, mine, b.near);
    }
    if (backward && b.kind.trained && (!b.keeps_gradient() || b.away(Kind::gradients))) bring_gradient(b, unit);
    for (Segment& s : b.segments) {
      s.held.weight = whole.part(s.range()).reshaped(s.part.local);
      if (b.kind.trained) s.held.gradient = b.gradient.part(s.range()).reshaped(s.part.local);
    }
  }
}

/// Room for a gradient while its unit computes; one that has been begun goes on.
inline void Bundles::bring_gradient(Bundle& b, Unit unit) {
  b.gradient = memory_->reducing.take(unit, {b.size, 1}, b.elements.gradient);
  const bool begun = std::any_of(b.segments.begin(), b.segments.end(), [](const Segment& s) { return s.held.touched; });
  if (begun && b.keeps_gradient()) session_->move(b.gradient_at_rest, b.gradient);
}

inline void Bundles::release(Unit unit) {
  Turn& turn = turn_of(unit);
  turn.weights.clear(), turn.unit.reset();
  memory_->gathered.pop(unit, turn.gathered_before);
}

inline void Bundles::zero_untouched(Bundle& b, const View& gradient) {
  Extent end = 0;
  for (Segment& s : b.segments) {
    if (!std::exchange(s.held.touched, false)) session_->launch(kernels::zero, gradient.part(s.range()));
    end = s.range().end;
  }
  session_->launch(kernels::zero, gradient.part({end, b.size}));
}

inline void Bundles::close(Unit unit) {
  Turn& turn = turn_of(unit);
  turn.closed = unit;
  for (Bundle* b : of_unit_[unit]) {
    if (b->units.front() != unit || b->gradient_part.size() == 0) {  // a tie's uses are summed first
      if (b->kind.trained && b->away(Kind::gradients)) session_->move(b->gradient, b->gradient_at_rest);
      continue;
    }
    zero_untouched(*b, b->gradient);
    const View mine = b->gradient.part(part(*b, b->where.gradients));
    turn.gradients.push_back({b, mine, mesh_->along(b->where.gradients).reduce_scatter(b->gradient, mine)});
  }
  // A gradient that is kept whole is written again by the next micro-batch's last use, whichever unit that is.
  const bool waits = std::any_of(turn.gradients.begin(), turn.gradients.end(), [](const Journey& j) {
    return !j.bundle->where.ahead || (j.bundle->keeps_gradient() && !j.bundle->away(Kind::gradients));
  });
  if (waits) reduced(turn);
}

/// One micro-batch's part of a gradient, added up where the sum rests.
inline void Bundles::add_up(Bundle& b, const View& mine) {
  const bool begun = std::exchange(b.part_touched, true);
  if (!b.away(Kind::gradients)) return session_->launch(kernels::pass_on, mine, Grad{b.gradient_part, begun});
  if (!begun) return session_->move(mine, b.gradient_part);
  const HostScope host{*session_};
  const ScratchScope scope{*memory_};
  const View here = memory_->scratch.take(mine.shape, mine.element);
  session_->move(mine, here);
  const Opened sum{*memory_, b.gradient_part, Access::update};
  session_->launch(kernels::pass_on, here, Grad{sum.view(), true});
}

/// The gradients that set off have come: they are added up over micro-batches.
inline void Bundles::reduced(Turn& turn) {
  for (auto& [b, mine, lease] : turn.gradients) {
    lease.wait();
    add_up(*b, mine);
  }
  turn.gradients.clear(), turn.closed.reset();
  memory_->reducing.pop(Extent(&turn - turns_.data()), turn.reducing_before);
}

inline void Bundles::abandon() {
  for (Extent i = 0; i < turns_.size(); ++i) {
    memory_->gathered.pop(i, turns_[i].gathered_before), memory_->reducing.pop(i, turns_[i].reducing_before);
    turns_[i] = {};  // each lease withdraws what wasn't taken
  }
}

/// A step that ended in an exception leaves gradients half summed: they count as untouched.
inline void Bundles::begin_step() {
  for (Bundle& b : bundles_) {
    b.part_touched = false;
    for (Segment& s : b.segments) s.held.touched = false;
  }
  for (NamedBuffer& b : buffers_) b.held.touched = false;
}

/// Axis by axis: data, then outer, then tensor, then tied stages; never over a union at once, or sharded and replicated runs
/// would part in the last bit.
inline void Bundles::finish() {
  for (Turn& turn : turns_) reduced(turn);
  for (Bundle& b : bundles_) {
    if (!b.kind.trained) continue;
    const bool in_parts = b.gradient_part.size() != 0;
    const View kept = in_parts ? b.gradient_part : b.away(Kind::gradients) ? b.gradient_at_rest : b.gradient;
    Range mine{0, kept.size()};
    where_gradients_rest(b, kept, [&](View here) {
      if (!in_parts) zero_untouched(b, here);
      if (const Axes axes = b.where.state - b.where.gradients; mesh_->size(axes) > 1) {
        mine = mesh_->part(axes, here.size());
        mesh_->along(axes).reduce_scatter(here, here.part(mine)).wait();
        here = here.part(mine);
      }
      for (const Axes axes : {(b.kind.summed_over - Axes::tensor) - b.where.state, b.kind.summed_over & Axes::tensor})
        if (mesh_->size(axes) > 1) mesh_->along(axes).all_reduce(here).wait();
    });
    b.reduced = kept.part(mine);
  }
  for (Bundle* b : tied_) where_gradients_rest(*b, b->reduced, [&](const View& here) { b->stages.all_reduce(here).wait(); });
}

/// f(gradient) with a gradient that rests off the device open, and kernels on the host.
void Bundles::where_gradients_rest(const Bundle& b, const View& gradient, auto f) {
  std::optional<HostScope> host;
  if (b.away(Kind::gradients)) host.emplace(*session_);
  f(Opened{*memory_, gradient, Access::update}.view());
}

inline void Bundles::publish() {
  for (Bundle& b : bundles_)
    if (const Axes axes = b.where.state - b.where.forward; b.kind.trained && mesh_->size(axes) > 1) {
      const OpenedHere open{*memory_, b.rest, Access::update};
      mesh_->along(axes).all_gather(b.weight_of_state(), b.rest).wait();
    }
  merge_buffers();
}

inline void Bundles::merge_buffers() {
  for (NamedBuffer& b : buffers_) {
    const bool maximum = b.buffer.merge == Buffer::Merge::max, touched = std::exchange(b.held.touched, false);
    const auto prepare = [maximum](View v) {
      dispatch(v.element, [&](auto zero) {
        using T = decltype(zero);
        std::fill_n(v.pointer<T>(), v.size(), maximum ? T(-std::numeric_limits<float>::infinity()) : T(0.0F));
      });
    };
    if (!touched) session_->launch(prepare, b.held.update);
    mesh_->along(mesh_->token_split() ? Axes::data | Axes::tensor : Axes::data)
        .all_reduce(b.held.update, maximum ? Combine::max : Combine::sum)
        .wait();
    const auto merge = [maximum](View value, View update) {
      dispatch(value.element, [&](auto zero) {
        using T = decltype(zero);
        for (Extent i = 0; i < value.size(); ++i) {
          T& v = value.pointer<T>()[i];
          const T u = update.pointer<T>()[i];
          v = maximum ? std::max(v, u) : T(v + u);
        }
      });
    };
    session_->launch(merge, b.held.value, b.held.update);
  }
}

/// Of this rank's elements alone: ranks that hold the same copy share out the counting.
inline double Bundles::squared_norm() const {
  double sum = 0;
  for (const Bundle& b : bundles_)
    if (b.kind.trained)
      session_->read(b.reduced.part({b.counted.begin - b.mine.begin, b.counted.end - b.mine.begin}),
                     [&sum](View g) { sum += kernels::squared_norm(g); });
  return sum;
}

inline std::string Bundles::first_not_finite() const {
  for (const Bundle& b : bundles_)
    for (const Segment& s : b.segments) {
      if (!b.kind.trained) continue;
      const Range here = overlap(s.range(), b.mine);
      bool finite = true;
      session_->read(b.reduced.part({here.begin - b.mine.begin, here.end - b.mine.begin}), [&](View g) { finite = kernels::all_finite(g); });
      if (!finite) return s.path;
    }
  return {};
}

template <class T>
void Bundles::assign(const std::string& path, std::span<const T> whole, Which which) {
  if (memory_->dry()) return;
  for (Bundle& b : bundles_)
    for (const Segment& s : b.segments) {
      if (s.path != path) continue;
      if (whole.size() != s.part.whole.size()) fail<407>(path, " has ", s.part.whole.size(), " elements, given ", whole.size());
      const auto set = [&](View all, Range range) {
        const Range here = overlap(s.range(), range);
        session_->edit(all.part({here.begin - range.begin, here.end - range.begin}), [&](View to) {
          dispatch(to.element, [&](auto zero) {
            using E = decltype(zero);
            for (Extent i = here.begin; i < here.end; ++i) to.pointer<E>()[i - here.begin] = E(whole[s.part.whole_index(i - s.offset)]);
          });
        });
      };
      if (which.of == Which::Of::weight) set(b.rest, b.resting);
      if (which.of != Which::Of::weight || b.own_master.size()) set(tensor(b, which), b.mine);
    }
}

template <class T>
std::vector<T> Bundles::collect(const std::string& path, Extent size, Which which) const {
  std::vector<T> whole(size);
  for (const Bundle& b : bundles_)
    for (const Segment& s : b.segments) {
      if (s.path != path || memory_->dry() || (!b.kind.trained && which.of != Which::Of::weight)) continue;
      const Range here = overlap(s.range(), b.counted);
      if (here.size() == 0) continue;
      session_->read(tensor(b, which).part({here.begin - b.mine.begin, here.end - b.mine.begin}), [&](View from) {
        dispatch(from.element, [&](auto zero) {
          using E = decltype(zero);
          for (Extent i = here.begin; i < here.end; ++i) whole[s.part.whole_index(i - s.offset)] = T(from.pointer<E>()[i - here.begin]);
        });
      });
    }
  return whole;
}

}  // namespace dsx
