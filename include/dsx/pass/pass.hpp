// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// One micro-batch under way: its nodes, its tape and where each buffer lives. A plain class.
///
/// An operation is a trivially copyable struct of node ids and slots:
///
///     struct Gelu : Operation {
///       Node x, y;
///       void forward(Pass& p) const { p.launch(kernels::gelu, p.view(x), p.view(y)); }
///       void towards_inputs(Pass& p) const { p.launch(kernels::gelu_pullback, p.view(x), p.incoming(y), p.gradient(x)); }
///     };
///
/// An operation asks for gradients before it opens a ScratchScope, for a gradient may be taken from scratch as well.
#pragma once

#include <dsx/comm/mesh.hpp>
#include <dsx/core/exact_sum.hpp>
#include <dsx/pass/distribution.hpp>
#include <dsx/pass/operation.hpp>
#include <dsx/pass/parameter.hpp>
#include <dsx/pass/saved_window.hpp>

#include <cstring>
#include <utility>

namespace dsx {

class Attending;

struct PassOptions {
  Element element = Element::f32;  // of values
  std::uint64_t seed = 0;          // of dropout
  bool recording = true;           // else an evaluation: no tape, no dropout
  Tier saved = Tier::device;       // where what backward reads rests until then
};

class Pass {
 public:
  Pass(const Mesh& mesh, Lifetimes& lives, PassOptions options)
      : saved{mesh.session().memory.stack(Category::saved)},
        recording{options.recording},
        training{options.recording},
        window_{mesh.session(), options.saved},
        mesh_{&mesh},
        memory_{&mesh.session().memory},
        lives_{&lives},
        element_{options.element},
        key_{.seed = options.seed} {}

  // ---- what operations use
  View view(Node);                                    // a node's value, its live rows
  View planned(Node n) const { return nodes_[n].value; }  // at the bound of its rows: what scratch is sized by
  View incoming(Node);                                // the gradient that has arrived at a node
  Grad gradient(Node);                                // where an operation adds to a node's gradient
  bool arrived(Node n) const { return nodes_[n].touched; }
  View weight(Slot slot) { return held(slot).weight; }
  Extent stack(Slot slot) { return held(slot).stack; }
  bool trained(Slot slot) { return held(slot).trained; }
  Grad weight_gradient(Slot, Axes partial);
  /// For a kernel that writes the gradients of two weights, of which one is frozen.
  Grad weight_gradient_or_scratch(Slot slot, Axes partial) {
    return trained(slot) ? weight_gradient(slot, partial) : Grad{scratch(held(slot).weight.shape, wide(element_)), false};
  }
  View buffer(Slot slot) { return held_buffer(slot).value; }
  Grad buffer_update(Slot slot);
  View scratch(Shape s, Element e) { return memory_->scratch.take(s, e); }
  View scratch_bytes(Extent bytes) { return memory_->scratch.take({bytes, 1}, Element::u8); }
  ScratchScope scratch_scope() { return ScratchScope{*memory_}; }
  template <class Kernel, class... Arguments>
  void launch(Kernel kernel, const Arguments&... arguments) {
    mesh_->session().launch(kernel, arguments...);
  }
  /// The one read by the host: the first element of a node; a dry run gets `assumed`.
  template <class T>
  T peek(Node n, T assumed) {
    mesh_->session().read(view(n).part({0, 1}), [&](View here) { assumed = *here.pointer<T>(); });
    return assumed;
  }
  const Rows& rows(Node n) const { return nodes_[n].rows; }
  Shape shape(Node n) const { return {nodes_[n].rows.live, nodes_[n].value.shape.columns}; }
  Element element(Node n) const { return nodes_[n].value.element; }
  Element element() const { return element_; }
  const Batch& batch() const { return batch_; }
  const Mesh& mesh() const { return *mesh_; }
  const Communicator& tensor() const { return mesh_->along(Axes::tensor); }
  bool dry() const { return memory_->dry(); }
  /// Whether a recomputed part runs once more: what it counts has been counted.
  bool replaying() const { return replay_ != 0; }
  /// Whether Common values are cut by tokens over the tensor axis: as the mesh says, but not within a RowsScope.
  bool token_split() const { return token_split_; }
  /// Of the live rows those that a Common value holds on this rank.
  Range tokens() const { return token_split_ ? tensor().part(rows_.live) : Range{0, rows_.live}; }
  /// What a mean over the rows of a step divides by.
  double step_rows() const { return batch_.step_rows > 0 ? batch_.step_rows : double(std::max<Extent>(batch_.live(), 1)); }
  /// A parameter's gradient is a term of a sum over the tensor axis unless the axis cuts the parameter, or its operand is
  /// Common and every rank holds all of it.
  template <class D>
  Axes partial(Slot slot) {
    const bool complete = held(slot).split || (std::same_as<D, Common> && !token_split_) || tensor().size() == 1;
    return complete ? Axes::none : Axes::tensor;
  }

  // ---- what functions over values use
  template <class D>
  Value<D> make(Extent columns) {
    return make<D>(columns, element_);
  }
  template <class D>
  Value<D> make(Extent columns, Element element) {
    Rows r = rows_;
    if constexpr (std::same_as<D, Common>)
      if (token_split_) {
        r.bound = (r.bound + tensor().size() - 1) / tensor().size(), r.live = tokens().size();
        if (r.ids) r.ids += tokens().begin;
      }
    return {this, make(r, columns, element)};
  }
  Node make(const Rows&, Extent columns, Element);
  /// While it lives, values are made of other rows than the micro-batch's, whole on every rank: all tokens of a split stream, or the
  /// rows of experts. A pullback runs outside, so an operation keeps what it needs of the scope.
  class [[nodiscard]] RowsScope {
   public:
    RowsScope(Pass& p, const Rows& rows) : pass_{&p}, rows_{std::exchange(p.rows_, rows)}, split_{std::exchange(p.token_split_, false)} {}
    RowsScope(const RowsScope&) = delete;
    RowsScope& operator=(const RowsScope&) = delete;
    ~RowsScope() { pass_->rows_ = rows_, pass_->token_split_ = split_; }

   private:
    Pass* pass_;
    Rows rows_;
    bool split_;
  };
  RowsScope with_rows(const Rows& rows) { return {*this, rows}; }
  /// Those that values are made of: the micro-batch's, or a scope's.
  const Rows& rows() const { return rows_; }
  /// A single number.
  Node make_scalar(Element element) { return make({.bound = 1, .live = 1}, 1, element); }
  Node alias(Node);  // another node over the same buffer
  template <IsOperation O>
  void run(const O& op) {
    static_assert(replayable<O>, "dsx-E420: an operation of a class names what it gives: auto results() const { return std::array{y}; }");
    play(op);
    if (recording) record(op);
  }
  /// Of an operation whose forward another one's kernel has done.
  template <IsOperation O>
  void has_run(const O& op) {
    if (recording) record(op);
  }
  /// Runs f(in) and keeps only its results; backward runs it again (Chen et al. 2016). Nests.
  template <class F, Flow In>
  auto recompute(F f, In in);
  /// Runs f(in) without keeping what operations of these classes give: where backward first reads a result of one, it is played again
  /// (Korthikanti et al. 2022). What a later unit reads is kept. Nests.
  template <class F>
  auto recompute(OperationClass classes, F f, Flow auto in) {
    const OperationClass around = std::exchange(recomputed_, recomputed_ | classes);
    auto out = f(in);
    recomputed_ = around;
    return out;
  }
  /// `weight`: one over a count known before the pass. `terms`: the tensor axis where each of its ranks has a term of the sum,
  /// as of a Common value that is split by tokens; none where all hold the whole.
  void add_loss(Node sum, double weight, Axes terms = Axes::none);
  void count(double term) {
    loss += term;
    if (losses) losses->add(term);
  }
  RandomKey random() { return {key_.seed, key_.step, unit_, ordinal_++}; }

  // ---- what the step uses
  void open(const Batch& batch, std::uint32_t step, Unit first) {
    batch_ = batch, key_.step = step, unit_ = first, recording = training, recomputed_ = OperationClass::none;
    scratch_base_ = memory_->scratch.top();  // what enters the stage may lie above it, and goes with the first unit
    rows_ = {batch.bound, dry() ? batch.bound : batch.live(), batch.row_ids.data(), &batch_.sequences}, token_split_ = mesh_->token_split();
    if (rows_.live > rows_.bound) fail<304>("a micro-batch of ", rows_.live, " rows; the plan holds ", rows_.bound);
    window_.open(first);
  }
  void enter(Unit unit, Binding& binding) {
    unit_ = unit, binding_ = &binding, ordinal_ = 0;
    window_.enter(unit);
    marks_.push_back(mark());
  }
  void leave_unit();
  void pull_unit(Unit, Binding&);  // backward through the unit entered last
  void keep(Node n) { life(n).leaves = true; }
  void lend(Lease lease) { leases_.push_back(std::move(lease)); }
  void park() { window_.park(); }  // forward has ended, and other passes go on
  void close();
  void abandon();  // closes after an exception, in whatever state it left the pass
  void forget_peaks() { saved.forget_peak(), window_.forget_peak(); }
  /// Makes room for what is saved, as a dry twin used it.
  void plan_as(const Pass& twin) { saved.reserve(twin.saved.peak()), window_.plan_as(twin.window_); }

  double flops = 0, loss = 0;
  ExactSum* losses = nullptr;  // where terms of the loss are also added up without rounding
  Stack saved;  // what backward reads
  bool recording;
  const bool training;
  Attending* attending = nullptr;  // where keys and values come from; none: from this pass
  Observer* observer = nullptr;

 private:
  static constexpr Extent kept = Extent(-1);
  struct NodeInfo {
    Rows rows{};
    View value{}, gradient{};  // of the bound
    Extent birth = 0;          // counts all nodes a pass ever made: the index of its lifetime
    Node source = 0;           // itself, unless an alias
    Extent producer = kept;    // the tape's entry that gives it once more
    bool touched = false, carries_value = false, carries_gradient = false, again = false;

    View live(View v) const { return v.rows({0, rows.live}); }
  };
  struct Mark {
    Extent entries, nodes, saved, window;
  };
  struct Entry {
    void (*pull)(Pass&, const std::byte*);
    void (*replay)(Pass&, const std::byte*);  // null: its results are kept
    Extent begin;
  };
  template <class O>
  void play(const O& op) {
    const Cost cost = op.cost(*this);
    flops += cost.flops;
    if (observer) observer->before(O::name, unit_, Observer::Phase::forward, cost);
    op.forward(*this);
    if (observer) observer->after(O::name, unit_, Observer::Phase::forward, *this);
  }
  template <class O>
  static constexpr bool has_class = O::operation_class != OperationClass::none && replayable<O>;
  template <class O>
  void record(const O& op) {
    const Extent begin = operations_.size();
    operations_.resize(begin + sizeof(O));
    std::memcpy(operations_.data() + begin, &op, sizeof(O));
    tape_.push_back({[](Pass& p, const std::byte* at) { p.pull(copy_of<O>(at)); }, nullptr, begin});
    if constexpr (has_class<O>) {
      // The dry run asks the policy, for it can't know yet where values are read; later runs ask what it found.
      if (lives_->known ? !life(op.results()[0]).recomputed : !overlaps(O::operation_class, recomputed_)) return;
      for (const Node n : op.results()) nodes_[n].producer = tape_.size() - 1;
      tape_.back().replay = [](Pass& p, const std::byte* at) { p.replay(copy_of<O>(at)); };
    }
  }
  template <class O>
  static O copy_of(const std::byte* at) {  // the tape may grow under a nested entry
    alignas(O) std::byte copy[sizeof(O)];
    std::memcpy(copy, at, sizeof(O));
    return *std::launder(reinterpret_cast<const O*>(copy));
  }
  /// All results anew, on memory that outlives the scopes of whoever reads them.
  template <class O>
  void replay(const O& op) {
    for (const Node n : op.results()) {
      NodeInfo& node = nodes_[n];
      node.value = memory_->carried.take(node.value.shape, node.value.element);
      node.carries_value = node.again = life(n).recomputed = true;
    }
    const Node reread = std::exchange(replay_, Node(nodes_.size()));
    const auto scope = scratch_scope();
    play(op);
    replay_ = reread;
  }
  void read_again(Node);
  template <class O>
  void pull(const O& op) {
    Cost cost = op.cost(*this);
    cost.flops *= 2, cost.bytes *= 2;
    flops += cost.flops;
    if (observer) observer->before(O::name, unit_, Observer::Phase::backward, cost);
    op.towards_inputs(*this);
    op.towards_weights(*this);
    if (observer) observer->after(O::name, unit_, Observer::Phase::backward, *this);
    if constexpr (has_class<O>)
      for (const Node n : op.results())
        if (nodes_[n].again) release(nodes_[n]);  // nothing reads it any more
  }
  HeldBuffer& held_buffer(Slot slot) {
    if (slot >= binding_->buffers.size()) fail<412>("unit ", unit_, " uses a buffer that no parts() names");
    return *binding_->buffers[slot];
  }
  Mark mark() const { return {tape_.size(), nodes_.size(), saved.top(), window_.top(unit_)}; }
  void pull_to(const Mark&);
  void forget(const Mark&);
  void release(NodeInfo&);
  Held& held(Slot slot) {
    if (slot >= binding_->parameters.size()) fail<412>("unit ", unit_, " uses a parameter that no parts() names");
    return *binding_->parameters[slot];
  }
  Life& life(Node n) { return lives_->of[nodes_[nodes_[n].source].birth]; }
  template <class F, class In, class Out>
  friend struct Recomputed;

  SavedWindow window_;
  const Mesh* mesh_;
  Memory* memory_;
  Lifetimes* lives_;
  Element element_;
  Batch batch_{};
  Rows rows_{};
  bool token_split_ = false;
  Binding* binding_ = nullptr;
  std::vector<NodeInfo> nodes_{};
  std::vector<Entry> tape_{};
  std::vector<std::byte> operations_{};
  std::vector<Mark> marks_{};
  std::vector<Lease> leases_{};
  Extent births_ = 0, scratch_base_ = 0;
  Node replay_ = 0;  // a replay reads nodes before this one once more
  OperationClass recomputed_ = OperationClass::none;
  Unit unit_ = 0;
  std::uint32_t ordinal_ = 0;
  bool pulling_ = false;
  RandomKey key_;
};

inline Node Pass::make(const Rows& rows, Extent columns, Element element) {
  const Extent birth = births_++;
  if (!lives_->known && lives_->of.size() <= birth) lives_->of.push_back({.made = unit_, .last = unit_, .last_in_backward = unit_});
  const auto where = lives_->known ? lives_->of[birth].where() : Life::Where::saved;
  NodeInfo info{.rows = rows, .birth = birth, .source = Node(nodes_.size())};
  const Shape shape{rows.bound, columns};
  switch (where) {
    case Life::Where::saved:
      info.value = window_.used() && lives_->known && lives_->of[birth].near() ? window_.take(unit_, shape, element) : saved.take(shape, element);
      break;
    case Life::Where::scratch: info.value = memory_->scratch.take(shape, element); break;
    case Life::Where::carried: info.value = memory_->carried.take(shape, element), info.carries_value = true; break;
  }
  nodes_.push_back(info);
  return info.source;
}

inline Node Pass::alias(Node of) {
  NodeInfo info{.rows = nodes_[of].rows, .value = nodes_[of].value, .birth = nodes_[of].birth, .source = nodes_[of].source};
  nodes_.push_back(info);
  return Node(nodes_.size() - 1);
}

inline View Pass::view(Node n) {
  const Node source = nodes_[n].source;
  if (pulling_ || n < replay_) read_again(source);
  else if (!lives_->known) life(n).last = std::max(life(n).last, unit_);
  return nodes_[n].live(nodes_[source].value);
}

inline void Pass::read_again(Node n) {
  const bool of_this_unit = n >= marks_.back().nodes;
  if (nodes_[n].producer == kept || !of_this_unit || !tape_[nodes_[n].producer].replay) {
    if (Life& l = life(n); !lives_->known) l.read_in_backward = true, l.last_in_backward = std::max(l.last_in_backward, unit_);
  } else if (!nodes_[n].again) {
    const Entry entry = tape_[nodes_[n].producer];
    entry.replay(*this, operations_.data() + entry.begin);
  }
}

inline Grad Pass::gradient(Node n) {
  NodeInfo& node = nodes_[n];
  if (node.touched) return {node.live(node.gradient), true};
  // A node of an earlier unit hands its gradient down: it outlives this unit. Behind the first unit nothing else is left.
  node.carries_gradient = marks_.empty() || n < marks_.back().nodes;
  const auto [data, shape, element, place, codec] = node.value;
  node.gradient = node.carries_gradient ? memory_->carried.take(shape, element) : memory_->scratch.take(shape, element);
  node.touched = true;
  return {node.live(node.gradient), false};
}

inline View Pass::incoming(Node n) {
  if (!nodes_[n].touched) fail<402>("unit ", unit_, ": a value was computed that no loss depends on; don't compute it, or record nothing");
  return nodes_[n].live(nodes_[n].gradient);
}

inline Grad Pass::weight_gradient(Slot slot, Axes partial) {
  Held& h = held(slot);
  if (h.used && h.partial != partial)
    fail<403>("unit ", unit_, ", parameter ", slot, ": one use leaves its gradient partial over ", to_text(h.partial), ", another over ",
              to_text(partial));
  h.partial = partial, h.used = true;
  return {h.gradient, std::exchange(h.touched, true)};
}

/// An evaluation and a replay count nothing.
inline Grad Pass::buffer_update(Slot slot) {
  HeldBuffer& b = held_buffer(slot);
  if (!training || replaying()) return {scratch(b.update.shape, b.update.element), false};
  return {b.update, std::exchange(b.touched, true)};
}

inline void Pass::release(NodeInfo& node) {
  if (node.carries_value) memory_->carried.give(node.value);
  if (node.carries_gradient) memory_->carried.give(node.gradient);
  node.carries_value = node.carries_gradient = false;
}

inline void Pass::leave_unit() {
  memory_->scratch.pop(scratch_base_);
  window_.leave(unit_);
  for (NodeInfo& node : nodes_) {
    const Life& life = lives_->of[node.birth];
    if (node.carries_value && !life.leaves && life.last <= unit_) release(node);
  }
}

inline void Pass::pull_to(const Mark& mark) {
  pulling_ = true;
  while (tape_.size() > mark.entries) {
    const Entry entry = tape_.back();
    entry.pull(*this, operations_.data() + entry.begin);
    tape_.pop_back(), operations_.resize(entry.begin);
  }
}

inline void Pass::forget(const Mark& mark) {
  for (Extent n = mark.nodes; n < nodes_.size(); ++n) release(nodes_[n]);
  nodes_.resize(mark.nodes);
  saved.pop(mark.saved), window_.pop(unit_, mark.window);
}

inline void Pass::pull_unit(Unit unit, Binding& binding) {
  unit_ = unit, binding_ = &binding;
  if (!lives_->known)  // later units have been pulled: who reads what is known but for this unit's own backward
    for (Node n = marks_.back().nodes; n < nodes_.size(); ++n)
      if (nodes_[n].producer != kept && life(n).read_elsewhere()) tape_[nodes_[n].producer].replay = nullptr;
  window_.bring(unit);
  if (unit > 0) window_.bring(unit - 1);
  if (unit > 1) window_.ahead(unit - 2);
  const auto scope = scratch_scope();
  pull_to(marks_.back());
  pulling_ = false;
  forget(marks_.back());
  marks_.pop_back();
  window_.drop(unit);
}

inline void Pass::close() {
  for (Lease& lease : leases_) lease.wait();
  leases_.clear(), marks_.clear();
  forget({0, 0, 0, 0}), window_.clear();
  tape_.clear(), operations_.clear();
  births_ = 0, flops = 0, loss = 0;
}

inline void Pass::abandon() {
  leases_.clear();  // each withdraws what wasn't taken
  close();
  recording = training, replay_ = 0, pulling_ = false;
}

/// The tape entry of a loss: counts it forward, seeds its gradient backward. Any unit may have one.
struct Seed : Operation {
  static constexpr const char* name = "loss";
  Node sum;
  double weight;
  bool counts;  // on this rank: the tensor axis repeats a whole sum
  void forward(Pass& p) const {
    const View s = p.view(sum);
    const auto count = [&](View v) { dispatch(v.element, [&](auto zero) { p.count(weight * double(*v.pointer<decltype(zero)>())); }); };
    if (counts && !p.replaying()) p.mesh().session().read(s, count);
  }
  void towards_inputs(Pass& p) const {
    const auto write = [&](View g) { dispatch(g.element, [&](auto zero) { *g.pointer<decltype(zero)>() = decltype(zero)(weight); }); };
    p.mesh().session().edit(p.gradient(sum).view, write);
  }
};
inline void Pass::add_loss(Node sum, double weight, Axes terms) { run(Seed{{}, sum, weight, any(terms) || tensor().rank() == 0}); }

/// A nested tape entry: plays f forward again, on top of the stack, and then backward.
template <class F, class In, class Out>
struct Recomputed : Operation {
  static constexpr const char* name = "recompute";
  F f;
  In in;
  Out out;
  std::uint32_t ordinal;
  Rows rows;
  bool token_split;

  void forward(Pass&) const {}
  void towards_inputs(Pass& p) const {
    const auto mark = p.mark();
    const auto scope = p.with_rows(rows);
    p.token_split_ = token_split;
    const auto ordinal_now = std::exchange(p.ordinal_, ordinal);
    const auto replay_now = std::exchange(p.replay_, Node(mark.nodes));
    p.pulling_ = false;
    Out again = f(in);
    p.ordinal_ = ordinal_now, p.replay_ = replay_now;
    std::array<Node, 16> old{};
    Extent count = 0, i = 0;
    Out before = out;
    before.values([&](auto& value) { old[count++] = value.node; });
    again.values([&](auto& value) {
      const Node from = old[i++];
      if (!p.arrived(from)) return;
      p.nodes_[value.node].gradient = p.nodes_[from].gradient;
      p.nodes_[value.node].touched = true;
    });
    p.pull_to(mark);
    p.forget(mark);
  }
};
template <class F, Flow In>
auto Pass::recompute(F f, In in) {
  const bool recorded = std::exchange(recording, false);
  const auto ordinal = ordinal_;
  auto out = f(in);
  recording = recorded;
  Extent results = 0;
  out.values([&](auto&) { ++results; });
  if (results > 16) fail<301>("a recomputed flow holds ", results, " values; the most is 16");
  if (recording) record(Recomputed<F, In, decltype(out)>{{}, f, in, out, ordinal, rows_, token_split_});
  return out;
}

}  // namespace dsx
