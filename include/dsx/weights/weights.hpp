// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The weights of this rank's stage of a model (of its chunks, where a schedule interleaves them), laid out by a recipe. A trainer, a
/// generator or a teacher borrows them.
///
///     Weights weights{mesh, make_gpt2({}), Recipe{ZeRO<3>{}}};
///     std::vector<float> table = weights.weight<float>("token_table");   // whole, on every rank
#pragma once

#include <dsx/nn/sequential.hpp>
#include <dsx/ops/embedding.hpp>
#include <dsx/policy/recipe.hpp>
#include <dsx/weights/bundles.hpp>

namespace dsx {

/// A parameter as checkpoints and reports see it.
struct ParameterRecord {
  std::string path;
  Shape shape{};
  Role role{};
  bool trained = true;
  Split split{};
  Extent stack = 1;  // matrices that lie below one another
};

template <class Model, class Recipe>
class Weights {
 public:
  Weights(const Mesh& mesh, Model model, Recipe recipe, std::uint64_t seed = 1)
      : mesh_{&mesh}, model_{std::move(model)}, recipe_{std::move(recipe)}, seed_{seed}, bundles_{mesh, fixed_grains()} {
    const Extent stages = mesh.size(Axes::pipe), units = model_.size(), chunks = chunks_of(recipe_.template get<ScheduleSlot>(), stages);
    if (stages * chunks > units)
      fail<303>("the model's ", units, " units can't make ", stages, " pipeline stages", chunks > 1 ? concat(" of ", chunks, " chunks") : "");
    for (Extent chunk = 0; chunk < chunks; ++chunk) ranges_.push_back(share({0, units}, links(), chunk * stages + mesh.coordinate(Axes::pipe)));
    std::vector<std::vector<Parameter>> parameters(units);
    list(parameters);
    const auto partial = probe(parameters);
    const auto sharding = recipe_.template get<ShardingSlot>();
    const auto quantizer = recipe_.template get<QuantizerSlot>();
    const Elements elements = this->elements();
    const auto ties = tie_stages();
    for (const Use& use : uses_) {
      if (!holds(use.unit)) continue;
      const Use& first = *std::find_if(uses_.begin(), uses_.end(), [&](const Use& u) { return u.path == use.path; });
      bundles_.add(use.unit, use.path, parameters[first.unit][first.slot], partial[use.unit][use.slot], ties[index_of(use.path)], elements, sharding,
                   quantizer);
    }
    model_.each_unit([&](const std::string& name, const auto& layer, Unit unit) {
      each_part(name, layer, [&](const std::string& path, const Buffer& b) {
        buffers_.push_back({path, {1, b.size}, Role::vector, false});
        if (holds(unit)) bundles_.add(unit, path, b, wide(elements.value));
      });
    });
    check_provided();
    choose_tiers();
    bundles_.settle(seed, units);
    for (const Use& use : uses_)
      if (holds(use.unit)) bundles_.bind(use.unit, use.path);
    model_.each_unit([&](const std::string& name, const auto& layer, Unit unit) {
      each_part(name, layer, [&](const std::string& path, const Buffer&) {
        if (holds(unit)) bundles_.bind(unit, path);
      });
    });
  }
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  /// The same weights on another session's mesh, to rehearse there.
  Weights on(const Mesh& mesh) const { return {mesh, model_, recipe_, seed_}; }

  /// Every rank gives the whole tensor; each keeps what lies there.
  template <class T>
  void assign(const std::string& path, std::span<const T> whole, Which which = {}) {
    (void)record(path);
    bundles_.assign(path, whole, which);
  }
  /// The whole tensor, on every rank: each element comes from the rank that answers for it.
  template <class T>
  std::vector<T> collect(const std::string& path, Which which) const {
    auto whole = bundles_.template collect<T>(path, record(path).shape.size(), which);
    mesh_->world().all_reduce({mesh_->session().is_dry() ? nullptr : whole.data(), {whole.size(), 1}, element_of<T>}).wait();
    return whole;
  }
  template <class T = float>
  std::vector<T> weight(const std::string& path) const {
    return collect<T>(path, {});
  }
  template <class T = float>
  std::vector<T> gradient(const std::string& path) const {
    return collect<T>(path, {Which::Of::gradient});
  }

  /// A buffer's merged value, on every rank.
  template <class T = float>
  std::vector<T> buffer(const std::string& path) const {
    const View here = bundles_.buffer(path);
    std::vector<T> whole(record_of(buffers_, path).shape.size());
    // Each data and tensor rank of the stage holds it: one gives.
    const bool gives = here.data && mesh_->coordinate(Axes::data) == 0 && mesh_->coordinate(Axes::tensor) == 0;
    const auto give = [&](View v) { dispatch(v.element, [&](auto zero) { std::copy_n(v.pointer<decltype(zero)>(), v.size(), whole.begin()); }); };
    if (gives) mesh_->session().read(here, give);
    mesh_->world().all_reduce({mesh_->session().is_dry() ? nullptr : whole.data(), {whole.size(), 1}, element_of<T>}).wait();
    return whole;
  }
  template <class T>
  void assign_buffer(const std::string& path, std::span<const T> whole) {
    const View here = bundles_.buffer(path);
    if (whole.size() != record_of(buffers_, path).shape.size())
      fail<407>(path, " has ", record_of(buffers_, path).shape.size(), " elements, given ", whole.size());
    mesh_->session().edit(here, [&](View v) {
      dispatch(v.element,
               [&](auto zero) { std::transform(whole.begin(), whole.end(), v.pointer<decltype(zero)>(), [](T x) { return decltype(zero)(x); }); });
    });
  }
  const std::vector<ParameterRecord>& buffers() const { return buffers_; }

  const std::vector<ParameterRecord>& records() const { return records_; }  // a tied parameter once
  const ParameterRecord& record(const std::string& path) const { return record_of(records_, path); }
  Extent parameters() const {
    Extent sum = 0;
    for (const ParameterRecord& r : records_) sum += r.shape.size();
    return sum;
  }

  const Mesh& mesh() const { return *mesh_; }
  const Model& model() const { return model_; }
  const Recipe& recipe() const { return recipe_; }
  /// The tier of what passes save for backward.
  Tier activations_rest() const { return recipe_.template get<OffloadSlot>().rests(Kind::activations, {}); }
  /// Whether sums are taken in grains that no layout changes.
  bool fixed_grains() const { return recipe_.template get<SummationSlot>().fixed_grains(); }
  Elements elements() const { return recipe_.template get<PrecisionSlot>().elements(); }
  /// The units of each of this stage's chunks.
  const std::vector<Range>& ranges() const { return ranges_; }
  bool holds(Unit unit) const {
    return std::any_of(ranges_.begin(), ranges_.end(), [unit](Range r) { return r.contains(unit); });
  }
  Bundles& bundles() { return bundles_; }
  const Bundles& bundles() const { return bundles_; }

  /// Columns and element of the values that enter a chunk.
  struct Entering {
    Extent columns;
    Element element;
  };
  const std::vector<Entering>& entering(Extent chunk) const { return entering_[chunk]; }

 private:
  struct Use {
    Unit unit;
    Slot slot;
    std::string path;
  };

  static const ParameterRecord& record_of(const std::vector<ParameterRecord>& records, const std::string& path) {
    for (const ParameterRecord& r : records)
      if (r.path == path) return r;
    fail<406>("nothing is called ", path, " among ", records.size(), " tensors", records.empty() ? "" : "; the first is " + records.front().path);
  }

  void list(std::vector<std::vector<Parameter>>& parameters) {
    model_.each_unit([&](const std::string& name, const auto& layer, Unit unit) {
      each_part(name, layer, [&](const std::string& path, const Parameter& p) {
        uses_.push_back({unit, Slot(parameters[unit].size()), p.tie.empty() ? path : std::string{p.tie}});
        parameters[unit].push_back(p);
        const std::string& known = uses_.back().path;
        for (const Use& use : uses_) {
          if (use.path != known || &use == &uses_.back()) continue;
          if (p.tie.empty()) fail<411>("two parameters are called ", known, "; give the layers that hold them names of their own");
          const Parameter& first = parameters[use.unit][use.slot];
          if (first.shape != p.shape || first.stack != p.stack || first.role != p.role || first.trained != p.trained || first.split != p.split)
            fail<404>("the uses of tied parameter ", known, " disagree: one is ", first.shape.rows, " x ", first.shape.columns, ", another ",
                      p.shape.rows, " x ", p.shape.columns, "; shape, role, split and whether it is trained must be the same");
          return;
        }
        records_.push_back({known, p.whole(), p.role, p.trained, p.split, p.stack});
      });
    });
  }
  void choose_tiers() {
    const auto offload = recipe_.template get<OffloadSlot>();
    bool on_disk = activations_rest() == Tier::disk;
    for (Bundle& b : bundles_.all())
      for (const Kind kind : {Kind::weights, Kind::gradients, Kind::state}) {
        const Tier tier = b.rests[Extent(kind)] = offload.rests(kind, b.kind);
        on_disk = on_disk || tier == Tier::disk;
      }
    if (on_disk) mesh_->session().memory.use_disk(disk_of(offload));
  }
  /// A policy that can't be honoured is refused, never passed over.
  void check_provided() const {
    const auto quantizer = recipe_.template get<QuantizerSlot>();
    for (const Bundle& b : bundles_.all()) {
      for (const QuantSite site : {QuantSite::rest, QuantSite::cache})
        if (const Codec* codec = quantizer.codec(site, b.kind))
          fail<109>("the quantizer gives ", codec->name(), " for ", b.segments.front().path, " at ", name_of(site), ", where nothing is packed");
      for (const QuantSite site : {QuantSite::gather, QuantSite::reduction, QuantSite::state})
        if (const Codec* codec = quantizer.codec(site, b.kind); codec && fixed_grains())
          fail<125>("the quantizer gives ", codec->name(), " for ", b.segments.front().path, " at ", name_of(site),
                    ", and the summation fixes its grains; drop one of the two");
        else if (codec && !(codec->known() && codec->block > 0))
          fail<117>("the quantizer gives ", codec->name(), " for ", b.segments.front().path, " at ", name_of(site),
                    ", where codes of 8 or 4 bits in blocks are packed: give it block_int8 or block_int4",
                    site == QuantSite::reduction ? "; signs under one scale travel by an optimizer's own reduction" : "");
    }
    if (recipe_.template get<AttentionSlot>().cuts_sequences()) fail<109>("the attention exchange cuts sequences; each rank attends to whole ones");
  }
  /// Chunks of the whole model.
  Extent links() const { return mesh_->size(Axes::pipe) * chunks_of(recipe_.template get<ScheduleSlot>(), mesh_->size(Axes::pipe)); }
  Extent stage_of(Unit unit) const {
    Extent link = 0;
    while (!share({0, model_.size()}, links(), link).contains(unit)) ++link;
    return link % mesh_->size(Axes::pipe);
  }
  Extent index_of(const std::string& path) const { return Extent(&record(path) - records_.data()); }
  /// Groups are formed for all ties in one order, on every rank that is on their stages.
  std::vector<Bundles::Tie> tie_stages() const {
    std::vector<Bundles::Tie> ties;
    for (const ParameterRecord& r : records_) {
      const auto stages = stages_of(r.path);
      const bool shared = stages.size() > 1;
      ties.push_back({shared ? mesh_->stages(stages) : Communicator{}, !shared || stages.front() == mesh_->coordinate(Axes::pipe), ties.size(),
                      shared ? uses_on(stages, r.path) : std::vector<TieUse>{}});
    }
    return ties;
  }
  std::vector<TieUse> uses_on(std::vector<Extent> stages, const std::string& path) const {
    std::sort(stages.begin(), stages.end());
    std::vector<TieUse> uses;
    for (const Use& use : uses_)
      if (use.path == path && (uses.empty() || uses.back().unit != use.unit))
        uses.push_back({use.unit, Rank(std::find(stages.begin(), stages.end(), stage_of(use.unit)) - stages.begin())});
    return uses;
  }
  std::vector<Extent> stages_of(const std::string& path) const {
    std::vector<Extent> stages;
    for (const Use& use : uses_)
      if (use.path == path)
        if (const Extent stage = stage_of(use.unit); std::find(stages.begin(), stages.end(), stage) == stages.end()) stages.push_back(stage);
    return stages;
  }

  /// Runs the units dry, forward and backward, to learn which gradients their use leaves partial, and what enters each chunk.
  struct Probe {
    Weights* weights;
    Pass* pass;
    std::vector<Binding>* bindings;
    void enter(auto&) {}
    void leave(auto&) {}
    auto unit(const auto& layer, Unit unit, auto flow, auto) {
      for (Extent chunk = 0; chunk < weights->ranges_.size(); ++chunk)
        if (unit == weights->ranges_[chunk].begin)
          flow.values([&](auto& value) { weights->entering_[chunk].push_back({pass->shape(value.node).columns, pass->element(value.node)}); });
      pass->enter(unit, (*bindings)[unit]);
      auto out = layer(flow);
      pass->leave_unit();
      if (unit + 1 == weights->ranges_.back().end) out.values([this](auto& value) { pass->gradient(value.node); });
      if constexpr (requires { out.use_weights(); }) out.use_weights();  // those that only an objective would
      return out;
    }
  };
  std::vector<std::vector<Axes>> probe(const std::vector<std::vector<Parameter>>& parameters) {
    Session twin = mesh_->session().dry_twin();
    const Mesh mesh{twin, mesh_->degrees()};
    const Element element = elements().value;
    std::vector<std::vector<Held>> held(parameters.size());
    std::vector<std::vector<HeldBuffer>> held_buffers(parameters.size());
    std::vector<Binding> bindings(parameters.size());
    for (Unit u = 0; u < parameters.size(); ++u) {
      for (const Parameter& p : parameters[u]) {
        const LocalPart part = part_on(mesh, p);
        held[u].push_back({.weight = {nullptr, part.local, element},
                           .gradient = {nullptr, part.local, elements().gradient},
                           .split = cut_by_tensor(p),
                           .stack = part.stack.size(),
                           .trained = p.trained});
      }
      for (Held& h : held[u]) bindings[u].parameters.push_back(&h);
    }
    model_.each_unit([&](const std::string&, const auto& layer, Unit u) {
      each_part("", layer, [&](const std::string&, const Buffer& b) {
        held_buffers[u].push_back({.value = {nullptr, {1, b.size}, wide(element)}, .update = {nullptr, {1, b.size}, wide(element)}});
      });
    });
    for (Unit u = 0; u < parameters.size(); ++u)
      for (HeldBuffer& b : held_buffers[u]) bindings[u].buffers.push_back(&b);
    Lifetimes lives;
    Pass pass{mesh, lives, {.element = element}};
    pass.open({.bound = mesh.size(Axes::tensor)}, 0, 0);
    Probe visit{this, &pass, &bindings};
    entering_.resize(ranges_.size());
    model_.walk({0, ranges_.back().end}, Tokens{&pass}, visit);
    for (Unit u = Unit(ranges_.back().end); u-- > ranges_.front().begin;) pass.pull_unit(u, bindings[u]);
    std::vector<std::vector<Axes>> partial;
    for (const auto& unit : held) {
      auto& axes = partial.emplace_back();
      for (const Held& h : unit) axes.push_back(h.partial);
    }
    return partial;
  }

  const Mesh* mesh_;
  Model model_;
  Recipe recipe_;
  std::uint64_t seed_;
  std::vector<Range> ranges_{};
  std::vector<Use> uses_{};
  std::vector<ParameterRecord> records_{}, buffers_{};
  std::vector<std::vector<Entering>> entering_{};
  Bundles bundles_;
};

}  // namespace dsx
