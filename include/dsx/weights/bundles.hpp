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
#include <dsx/weights/grain_reduction.hpp>
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
  /// `by_grains`: sums are those of grain_reduction.hpp.
  explicit Bundles(const Mesh& mesh, bool by_grains = false)
      : mesh_{&mesh},
        session_{&mesh.session()},
        memory_{&session_->memory},
        grains_{by_grains ? std::optional{GrainReduction{mesh}} : std::nullopt} {}

  /// The stages that share a tied parameter; `order` is the same on all of them.
  struct Tie {
    Communicator stages{};
    bool first_stage = true;
    Extent order = 0;
    std::vector<TieUse> uses{};
  };
  /// Adds a parameter to its class.
  void add(Unit unit, const std::string& path, const Parameter& p, Axes partial, const Tie& tie, const Elements& elements, auto& sharding,
           auto& quantizer);
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
  /// A trainer comes with so many micro-batches a step, and goes.
  void keep_sums(Extent micro_batches);
  void give_back_sums();
  /// `exact`: or gradients stay terms where the optimizer sums what it makes of them.
  void begin_step(bool exact = true);
  /// Lets go of everything that is under way, after an exception.
  void abandon();
  void finish();
  void publish();
  /// What sums of gradients owe begins at zero again: of a step that was given up nothing is owed. An optimizer's own sum hadn't begun.
  void forget_owed(bool of_optimizer = false);
  /// Packed state that was assigned tensor by tensor is packed, when all of it is there.
  void pack_loaded();
  /// f(name, view) for all that this rank's reductions owe.
  void each_owed(auto f, bool of_optimizer = true);
  double squared_norm() const;
  ExactSum exact_squared_norm() const { return grains_->squared_norm(bundles_); }
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
    View sum{}, leaves_MC{};  // of a step; where sums are taken by grains, each micro-batch's
    Extent came = 0;

    bool by_grains() const { return leaves_MC.size() > 0; }
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
    View packed{};  // what travels, a row a part
  };
  /// The weights of a unit that computes or will be the next to, and the gradients of one that was the last.
  struct Turn {
    std::optional<Unit> unit{}, closed{};
    std::vector<Journey> weights{}, gradients{};  // of `unit`, of `closed`
    Extent gathered_before = 0, reducing_before = 0;
  };
  Turn& turn_of(Unit unit) { return turns_[unit % 2]; }
  void fetch(Unit, Direction, bool ahead);
  void fetch_packed(Journey&, Unit, bool near, Axes axes);
  void round_as_published(Bundle&);
  void reduced(Turn&);
  void choose_reductions(Bundle&);
  void start(Bundle&, std::uint64_t seed);
  void bring_gradient(Bundle&, Unit);
  void zero_untouched(Bundle&, const View& gradient);
  void add_up(Bundle&, const View& mine);
  void where_gradients_rest(const Bundle&, const View& gradient, auto f);
  std::vector<double> unpacked_state(const Bundle&, Extent state) const;
  void publish_packed(Bundle&, const Communicator&);
  void merge_buffers();
  void next_leaves(Unit);
  void sum_leaves(const NamedBuffer&);
  /// Weights travel packed between forward's parts; a second copy is rows of them.
  bool gathers_packed(const Bundle& b) const { return b.codecs.gather && mesh_->size(b.where.forward) > 1; }
  Shape near_shape(const Bundle& b) const {
    if (!gathers_packed(b)) return {part(b, b.where.backward).size(), 1};
    const Extent parts = mesh_->size(b.where.forward);
    return {parts / mesh_->size(b.where.backward), b.codecs.gather->packed_bytes(b.size / parts)};
  }
  /// The elements of `mine` that this rank answers for; of terms all ranks that sum them do.
  Range answered(const Bundle& b, bool terms = false) const {
    const Axes replicas = (b.kind.summed_over | Axes::tensor) - b.where.state - b.kind.split_over - (terms ? b.summed_whole() : Axes::none);
    return b.first_stage ? share(b.mine, mesh_->size(replicas), mesh_->coordinate(replicas)) : Range{};
  }
  View tensor(const Bundle& b, Which which) const {
    return which.of == Which::Of::weight ? b.master() : which.of == Which::Of::gradient ? b.reduced : b.states[which.state];
  }

  const Mesh* mesh_;
  Session* session_;
  Memory* memory_;
  std::optional<GrainReduction> grains_;
  std::deque<Bundle> bundles_{};
  std::deque<NamedBuffer> buffers_{};
  std::vector<Binding> bindings_{};
  std::vector<Bundle*> tied_{};  // over stages, in the order that all of them keep
  std::vector<std::vector<Bundle*>> of_unit_{};
  std::array<Turn, 2> turns_{};
  bool owed_is_void_ = false;
};

inline void Bundles::add(Unit unit, const std::string& path, const Parameter& p, Axes partial, const Tie& tie, const Elements& elements,
                         auto& sharding, auto& quantizer) {
  const ParameterInfo info{p.tie, p.whole(), p.cut_over(), (p.stack > 1 ? Axes::expert_data : Axes::data) | partial, p.role, p.trained};
  Bundle& bundle = find(unit, info, std::string{p.tie});
  if (bundle.segments.empty()) {
    bundle.elements = elements, bundle.by_grains = grains_.has_value();
    bundle.where = sharding.residency(info, *mesh_);
    bundle.codecs = {quantizer.codec(QuantSite::gather, info), quantizer.codec(QuantSite::reduction, info), quantizer.codec(QuantSite::state, info),
                     feedback_of(quantizer, info)};
    bundle.stages = tie.stages, bundle.first_stage = tie.first_stage, bundle.tie_order = tie.order, bundle.uses = tie.uses;
  }
  if (!p.tie.empty() && !bundle.segments.empty()) return;  // another use of the same parameter
  auto& s = bundle.segments.emplace_back(Segment{path, part_on(*mesh_, p), p.init, bundle.size});
  s.held.split = cut_by_tensor(p), s.held.stack = s.part.stack.size(), s.held.trained = p.trained;
  bundle.size += s.part.local.size();
}

inline void Bundles::add(Unit unit, const std::string& path, const Buffer& b, Element element) {
  NamedBuffer& named = buffers_.emplace_back(NamedBuffer{unit, path, b});
  named.held.value = memory_->keep(Category::state, {1, b.size}, element);
  named.held.update = named.sum = memory_->keep(Category::gradients, {1, b.size}, element);
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
  if (b.codecs.gather && mesh_->size(backward) > 1 && !(mesh_->size(backward - forward) == 1 && contains_slices(backward, forward)))
    fail<118>("the weights of ", b.segments.front().path, " are gathered packed, in forward over ", to_text(forward), " and in backward over ",
              to_text(backward),
              "; the second copy is packed parts of the first: cut it over some of the same axes, inner before outer, or gather exactly");
  if (grains_ && !contains_slices(state, b.kind.summed_over - Axes::tensor))
    fail<124>("sums by grains are taken in slices over ", to_text(b.kind.summed_over - Axes::tensor), ", and state over ", to_text(state),
              " doesn't contain them; cut over inner before outer");
}

inline void Bundles::settle(std::uint64_t seed, Extent units) {
  bindings_.resize(units), of_unit_.resize(units);
  const Extent multiple = mesh_->size(Axes::data) * mesh_->size(Axes::tensor);
  for (Bundle& b : bundles_) {
    check(b);
    const auto [forward, backward, gradients, state, ahead] = b.where;
    b.size = round_up(b.size, multiple);
    b.resting = part(b, forward), b.mine = part(b, state);
    b.counted = answered(b);
    b.publishes_packed = b.unpublished = b.codecs.gather && b.kind.trained && mesh_->size(state - forward) > 1;
    b.rest = memory_->keep(Category::weights, {b.resting.size(), 1}, b.elements.value, b.tier(Kind::weights));
    if (forward != backward)
      b.near = memory_->keep(Category::weights, near_shape(b), gathers_packed(b) ? Element::u8 : b.elements.value, b.tier(Kind::weights));
    if (b.kind.trained) {
      if (b.has_own_master()) b.own_master = memory_->keep(Category::state, {b.mine.size(), 1}, b.elements.master, b.tier(Kind::state));
      const auto keep = [&](Extent size) { return memory_->keep(Category::gradients, {size, 1}, b.elements.gradient, b.tier(Kind::gradients)); };
      if (!grains_ && mesh_->size(gradients) > 1) b.gradient_part = keep(part(b, gradients).size());
      if (b.keeps_gradient()) (b.away(Kind::gradients) ? b.gradient_at_rest : b.gradient) = keep(b.size);
      choose_reductions(b);
    }
    if (!memory_->dry()) start(b, seed);
    if (b.stages.size() > 1 && b.kind.trained) tied_.push_back(&b);
    for (const Unit u : b.units) of_unit_[u].push_back(&b);
  }
  std::sort(tied_.begin(), tied_.end(), [](const Bundle* a, const Bundle* b) { return a->tie_order < b->tie_order; });
}

inline void Bundles::choose_reductions(Bundle& b) {
  if (!b.codecs.reduction) return;
  const Packing how{b.codecs.reduction, b.codecs.feedback, b.tier(Kind::gradients)};
  const Axes parts = b.where.gradients, rest = b.where.state - b.where.gradients, whole = b.summed_whole();
  const Extent part = b.size / mesh_->size(parts), last = part / mesh_->size(rest);
  if (mesh_->size(parts) > 1) b.to_part.emplace(*mesh_, parts, how, b.size, b.elements.gradient);
  if (mesh_->size(rest) > 1) b.to_state.emplace(*mesh_, rest, how, part, b.elements.gradient);
  if (mesh_->size(whole) > 1) b.whole_sum = std::make_unique<PackedSum>(*mesh_, whole, how, last, b.elements.gradient);
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
    if (b->unpublished) round_as_published(*b);
    Journey& journey = turn.weights.emplace_back(Journey{b, at_rest});
    const bool away = b->away(Kind::weights);
    if (gathers_packed(*b)) {
      fetch_packed(journey, unit, near, axes);
      continue;
    }
    if (mesh_->size(axes) == 1 && !away) continue;
    journey.whole = memory_->gathered.take(unit, {b->size, 1}, b->elements.value);
    const View mine = away ? journey.whole.part(part(*b, axes)) : at_rest;
    if (away) session_->move(at_rest, mine);
    if (mesh_->size(axes) > 1) journey.lease = mesh_->along(axes).all_gather(mine, journey.whole);
  }
}

/// What travels is packed once, on the way to forward; the second copy is the packed rows of near ranks, so that backward meets the same values.
inline void Bundles::fetch_packed(Journey& journey, Unit unit, bool near, Axes axes) {
  Bundle& b = *journey.bundle;
  const Codec& codec = *b.codecs.gather;
  const View at_rest = journey.whole;
  const bool away = b.away(Kind::weights);
  const auto take = [&](Shape shape, Element element) { return memory_->gathered.take(unit, shape, element); };
  journey.whole = take({b.size, 1}, b.elements.value);
  journey.packed = packed_parts::room(codec, mesh_->size(b.where.forward), b.size, take);
  const View mine = journey.packed.rows(mesh_->part(axes, journey.packed.shape.rows));
  if (near) {
    away ? session_->move(at_rest, mine) : session_->launch(kernels::copy, at_rest, mine);
  } else {
    const View values = away ? journey.whole.part(part(b, axes)) : at_rest;
    if (away) session_->move(at_rest, values);
    session_->launch(kernels::quantize, codec, values, mine);
  }
  if (mesh_->size(axes) > 1) journey.lease = mesh_->along(axes).all_gather(mine, journey.packed);
}

/// Weights that rest whole, given from outside: each part becomes what a packed gather would have made of it.
inline void Bundles::round_as_published(Bundle& b) {
  b.unpublished = false;
  const Codec& codec = *b.codecs.gather;
  const Extent parts = mesh_->size(b.where.state - b.where.forward);
  session_->edit(b.rest, [&](const View& all) {
    for (Extent r = 0; r < parts; ++r) {
      const View values = all.part(share({0, all.size()}, parts, r));
      std::vector<std::uint8_t> packed(codec.packed_bytes(values.size()));
      const View bytes{packed.data(), {packed.size(), 1}, Element::u8};
      kernels::quantize(codec, values, bytes), kernels::dequantize(codec, bytes, {values, false});
    }
  });
}

inline void Bundles::acquire(Unit unit, Direction direction, std::optional<Unit> next) {
  const bool backward = direction == Direction::backward;
  if (!backward && grains_) next_leaves(unit);
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
  for (auto& [bundle, whole, lease, packed] : turn.weights) {
    Bundle& b = *bundle;
    lease.wait();
    if (packed.size()) packed_parts::unpack(*session_, *b.codecs.gather, packed, whole);
    if (!backward && b.where.forward != b.where.backward) {
      const View mine = packed.size() ? packed.rows(mesh_->part(b.where.backward, packed.shape.rows)) : whole.part(part(b, b.where.backward));
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
    if (grains_) {
      if (!b->kind.trained) continue;
      zero_untouched(*b, b->gradient);
      const View leaves = grains_->travels(*b) ? memory_->reducing.take(unit, b->gradient.shape, b->gradient.element) : b->gradient;
      turn.gradients.push_back({b, leaves, grains_->set_off(*b, leaves)});
      continue;
    }
    if (b->units.front() != unit || b->gradient_part.size() == 0) {  // a tie's uses are summed first
      if (b->kind.trained && b->away(Kind::gradients)) session_->move(b->gradient, b->gradient_at_rest);
      continue;
    }
    zero_untouched(*b, b->gradient);
    const View mine = b->gradient.part(part(*b, b->where.gradients));
    Journey& journey = turn.gradients.emplace_back(Journey{b, mine});
    if (b->to_part)
      b->to_part->begin(b->gradient, [&](Shape s, Element e) { return memory_->reducing.take(unit, s, e); });
    else
      journey.lease = mesh_->along(b->where.gradients).reduce_scatter(b->gradient, mine);
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
  const Extent end = Extent(&turn - turns_.data());
  for (auto& [b, mine, lease, packed] : turn.gradients) {
    lease.wait();
    if (b->to_part) b->to_part->finish([&](Shape s, Element e) { return memory_->reducing.take(end, s, e); });
    grains_ ? grains_->add(*b, *turn.closed, mine) : add_up(*b, mine);
  }
  turn.gradients.clear(), turn.closed.reset();
  memory_->reducing.pop(end, turn.reducing_before);
}

inline void Bundles::abandon() {
  for (Extent i = 0; i < turns_.size(); ++i) {
    memory_->gathered.pop(i, turns_[i].gathered_before), memory_->reducing.pop(i, turns_[i].reducing_before);
    turns_[i] = {};  // each lease withdraws what wasn't taken
  }
  for (Bundle& b : bundles_)
    for (auto* reduction : {&b.to_part, &b.to_state})
      if (*reduction) (*reduction)->abandon();
  owed_is_void_ = true;
}

void Bundles::each_owed(auto f, bool of_optimizer) {
  if (owed_is_void_) forget_owed();
  for (Bundle& b : bundles_) {
    const auto name = [&](const Owed& owed, const char* of) {
      if (owed.view.size()) f(concat(b.segments.front().path, ".", of, owed.name), owed.view);
    };
    if (b.to_part)
      for (const Owed& owed : b.to_part->owed()) name(owed, "");
    if (b.to_state)
      for (const Owed& owed : b.to_state->owed()) name(owed, "last_");
    if (b.whole_sum)
      for (const Owed& owed : b.whole_sum->owed()) name(owed, "whole_");
    if (b.own_sum && of_optimizer)
      for (const Owed& owed : b.own_sum->owed()) name(owed, "optimizer_");
  }
}
inline void Bundles::forget_owed(bool of_optimizer) {
  owed_is_void_ = false;
  each_owed([&](const std::string&, const View& owed) { session_->edit(owed, [](const View& v) { kernels::zero(v); }); }, of_optimizer);
}

/// A step that ended in an exception leaves gradients half summed: they count as untouched.
inline void Bundles::begin_step(bool exact) {
  if (owed_is_void_) forget_owed();
  pack_loaded();
  for (Bundle& b : bundles_) {
    b.keeps_term = b.own_sum && !exact;
    b.part_touched = false;
    for (Segment& s : b.segments) s.held.touched = false;
    for (GrainSum& sum : b.sums) sum.begin();
  }
  for (NamedBuffer& b : buffers_) b.held.touched = false, b.came = 0;
}

/// Axis by axis: data, then outer, then tensor, then tied stages; never over a union at once, or sharded and replicated runs
/// would part in the last bit.
inline void Bundles::finish() {
  for (Turn& turn : turns_) reduced(turn);
  if (grains_) return grains_->finish(bundles_, tied_);
  for (Bundle& b : bundles_) {
    if (!b.kind.trained) continue;
    const bool in_parts = b.gradient_part.size() != 0;
    const View kept = in_parts ? b.gradient_part : b.away(Kind::gradients) ? b.gradient_at_rest : b.gradient;
    Range mine{0, kept.size()};
    where_gradients_rest(b, kept, [&](View here) {
      if (!in_parts) zero_untouched(b, here);
      if (const Axes axes = b.where.state - b.where.gradients; mesh_->size(axes) > 1) {
        mine = mesh_->part(axes, here.size());
        if (b.to_state) {
          const ScratchScope scope{*memory_};
          const auto take = [this](Shape s, Element e) { return memory_->scratch.take(s, e); };
          b.to_state->begin(here, take), b.to_state->finish(take);
        } else {
          mesh_->along(axes).reduce_scatter(here, here.part(mine)).wait();
        }
        here = here.part(mine);
      }
      if (b.whole_sum)
        b.whole_sum->reduce(here);
      else if (const Axes axes = b.keeps_term ? Axes::none : b.summed_whole(); mesh_->size(axes) > 1)
        mesh_->along(axes).all_reduce(here).wait();
      if (const Axes axes = b.kind.summed_over & Axes::tensor; mesh_->size(axes) > 1) mesh_->along(axes).all_reduce(here).wait();
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
      const Communicator& ranks = mesh_->along(axes);
      if (b.publishes_packed)
        publish_packed(b, ranks);
      else
        ranks.all_gather(b.weight_of_state(), b.rest).wait();
    }
  merge_buffers();
}

inline void Bundles::publish_packed(Bundle& b, const Communicator& ranks) {
  std::optional<HostScope> host;
  if (b.away(Kind::weights)) host.emplace(*session_);
  const ScratchScope scope{*memory_};
  const Codec& codec = *b.codecs.gather;
  const View packed = packed_parts::room(codec, ranks.size(), b.rest.size(), [this](Shape s, Element e) { return memory_->scratch.take(s, e); });
  const View mine = packed_parts::row(packed, ranks.rank());
  session_->launch(kernels::quantize, codec, b.weight_of_state(), mine);
  ranks.all_gather(mine, packed).wait();
  packed_parts::unpack(*session_, codec, packed, b.rest);
}

inline void Bundles::keep_sums(Extent micro_batches) {
  if (!grains_) return;
  for (Bundle& b : bundles_)
    if (b.kind.trained) grains_->keep(b, micro_batches);
  for (NamedBuffer& b : buffers_)  // the greatest of all is the same in any order
    if (b.buffer.merge != Buffer::Merge::max) b.leaves_MC = memory_->keep(Category::gradients, {micro_batches, b.sum.size()}, b.sum.element);
}

inline void Bundles::give_back_sums() {
  if (!grains_) return;
  for (Bundle& b : bundles_) grains_->give_back(b);
  for (NamedBuffer& b : buffers_)
    if (b.by_grains()) memory_->give_back(Category::gradients, std::exchange(b.leaves_MC, {})), b.held.update = b.sum;
}

/// A unit's buffers count each micro-batch by itself.
inline void Bundles::next_leaves(Unit unit) {
  for (NamedBuffer& b : buffers_) {
    if (b.unit != unit || b.came == b.leaves_MC.shape.rows) continue;
    b.held.update = b.leaves_MC.rows({b.came, b.came + 1}), b.held.touched = true;
    session_->launch(kernels::zero, b.held.update);
    ++b.came;
  }
}

/// What every micro-batch of every rank has counted, as a tree over their numbers.
inline void Bundles::sum_leaves(const NamedBuffer& b) {
  const Communicator& ranks = mesh_->along(mesh_->token_split() ? Axes::data | Axes::tensor : Axes::data);
  const Extent micro_batches = b.leaves_MC.shape.rows, columns = b.leaves_MC.shape.columns;
  const ScratchScope scope{*memory_};
  const View all = memory_->scratch.take({ranks.size() * micro_batches, columns}, b.sum.element);
  ranks.all_gather(b.leaves_MC, all).wait();
  const auto add = [&](const View& from, const View& to) { session_->launch(kernels::pass_on, from, Grad{to, true}); };
  TreeSum tree;
  for (Extent m = 0; m < micro_batches; ++m)
    for (Rank r = 0; r < ranks.size(); ++r) tree.add(all.rows({r * micro_batches + m, r * micro_batches + m + 1}), add);
  tree.fold(add);
  session_->launch(kernels::copy, tree.at(0), b.sum);
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
    if (b.by_grains()) {
      sum_leaves(b);
    } else {
      if (!touched) session_->launch(prepare, b.held.update);
      mesh_->along(mesh_->token_split() ? Axes::data | Axes::tensor : Axes::data)
          .all_reduce(b.held.update, maximum ? Combine::max : Combine::sum)
          .wait();
    }
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
    session_->launch(merge, b.held.value, b.sum);
  }
}

/// Of this rank's elements alone: ranks that hold the same copy share out the counting. Of terms that stay on their ranks the sum isn't known;
/// the mean of the squared norms of what each rank takes for it (its term times the ranks) is no less than the sum's.
inline double Bundles::squared_norm() const {
  double sum = 0;
  for (const Bundle& b : bundles_) {
    if (!b.kind.trained) continue;
    const Range here = answered(b, b.keeps_term);
    const double weight = b.keeps_term ? double(mesh_->size(b.summed_whole())) : 1;
    session_->read(b.reduced.part({here.begin - b.mine.begin, here.end - b.mine.begin}), [&](View g) { sum += weight * kernels::squared_norm(g); });
  }
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
      if (which.of == Which::Of::weight) set(b.rest, b.resting), b.unpublished = b.publishes_packed;
      if (which.of == Which::Of::state && b.codecs.state) {
        b.loading.resize(b.states.size());
        auto& values = b.loading[which.state];
        if (values.empty()) values = unpacked_state(b, which.state);
        set({values.data(), {values.size(), 1}, Element::f64}, b.mine);
      } else if (which.of != Which::Of::weight || b.own_master.size()) {
        set(tensor(b, which), b.mine);
      }
    }
}

/// In double a packed value is exact, and packs into the same bits.
inline std::vector<double> Bundles::unpacked_state(const Bundle& b, Extent i) const {
  if (i < b.loading.size() && !b.loading[i].empty()) return b.loading[i];
  std::vector<double> values(b.mine.size());
  session_->read(b.states[i],
                 [&](const View& packed) { unpack_state(*b.codecs.state, packed, {values.data(), {values.size(), 1}, Element::f64}, b.squares[i]); });
  return values;
}
inline void Bundles::pack_loaded() {
  for (Bundle& b : bundles_) {
    for (Extent i = 0; i < b.loading.size(); ++i)
      if (auto& values = b.loading[i]; !values.empty()) {
        const View loaded{values.data(), {values.size(), 1}, Element::f64};
        kernels::zero(loaded.part(b.padding_of_mine()));
        session_->edit(b.states[i], [&](const View& packed) { pack_state(*b.codecs.state, loaded, packed, b.squares[i]); });
      }
    b.loading.clear();
  }
}

template <class T>
std::vector<T> Bundles::collect(const std::string& path, Extent size, Which which) const {
  std::vector<T> whole(size);
  for (const Bundle& b : bundles_)
    for (const Segment& s : b.segments) {
      if (s.path != path || memory_->dry() || (!b.kind.trained && which.of != Which::Of::weight)) continue;
      const Range here = overlap(s.range(), which.of == Which::Of::gradient ? answered(b, b.keeps_term) : b.counted);
      if (here.size() == 0) continue;
      std::vector<double> unpacked;
      View held = tensor(b, which);
      if (which.of == Which::Of::state && b.codecs.state) {
        unpacked = unpacked_state(b, which.state);
        held = {unpacked.data(), {unpacked.size(), 1}, Element::f64};
      }
      session_->read(held.part({here.begin - b.mine.begin, here.end - b.mine.begin}), [&](View from) {
        dispatch(from.element, [&](auto zero) {
          using E = decltype(zero);
          for (Extent i = here.begin; i < here.end; ++i) whole[s.part.whole_index(i - s.offset)] = T(from.pointer<E>()[i - here.begin]);
        });
      });
    }
  return whole;
}

}  // namespace dsx
