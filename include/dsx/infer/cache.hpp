// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Keys and values of the tokens before, so that a new token costs one row: an Attending, behind the same layers.
///
///     KeyValueCache cache{memory, 4, 1024};    // four sequences of at most 1,024 tokens
///     pass.attending = &cache;
///     cache.begin(slots);                      // sequence s of the micro-batch goes on in slots[s]
///     ...                                      // a pass over the new rows
///     cache.commit(batch.sequences);
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/pass/attending.hpp>

namespace dsx {

class KeyValueCache final : public Attending {
 public:
  /// A layer's place is made when a dry pass first meets it, or by take_layers() from a cache that a dry pass has met.
  KeyValueCache(Memory& memory, Extent slots, Extent length) : memory_{&memory}, capacity_{length}, lengths_(slots) { caches_.reserve(slots); }

  Extent slots() const { return lengths_.size(); }
  Extent length(Extent slot) const { return lengths_[slot]; }
  void clear(Extent slot) { lengths_[slot] = 0; }

  void begin(std::span<const Extent> slots) { slots_ = slots, layer_ = 0; }
  /// The rows of the pass that has ended are part of their sequences now.
  void commit(Sequences sequences) {
    for (Extent s = 0; s < sequences.count(); ++s) lengths_[slots_[s]] += sequences[s].size();
  }
  /// `to` becomes a copy of `from`: a beam that goes on in two ways.
  void copy(Extent from, Extent to) {
    const Range filled{0, lengths_[from]};
    for (const Layer& layer : layers_)
      for (const View& all : {layer.keys, layer.values}) kernels::copy(slot(all, from).rows(filled), slot(all, to).rows(filled));
    lengths_[to] = lengths_[from];
  }
  void take_layers(const KeyValueCache& dry) {
    for (const Layer& layer : dry.layers_) add_layer(layer.heads, layer.keys.element);
  }

  Value<Sharded> attend(Value<Sharded> qkv, const Heads& heads) override {
    Pass& p = *qkv.pass;
    const Element element = p.element(qkv.node);
    if (layer_ == layers_.size()) {
      if (!p.dry()) fail<401>("a cache of ", layers_.size(), " attention layers met one more");
      add_layer(heads, element);
    }
    const auto y = p.make<Sharded>(heads.query * heads.dim, element);
    p.run(Attend{{}, qkv.node, y.node, this, layer_++});
    return y;
  }

 private:
  struct Layer {
    Heads heads;
    View keys, values;  // capacity rows a slot
  };
  struct Attend : Operation {
    static constexpr const char* name = "attention";
    Node qkv, y;
    KeyValueCache* cache;
    Extent layer;
    Cost cost(Pass& p) const {
      const Heads& heads = cache->layers_[layer].heads;
      return {4.0 * double(p.shape(y).rows) * double(cache->capacity_) * double(heads.query * heads.dim)};  // at most
    }
    void forward(Pass& p) const {
      const auto attend = [](KeyValueCache* c, Extent l, View qkv, Sequences s, View y) { c->run(c->layers_[l], qkv, s, y); };
      p.launch(attend, cache, layer, p.view(qkv), p.batch().sequences, p.view(y));
    }
    void towards_inputs(Pass&) const { fail<408>("a pass that is recorded for its gradient can't attend to a cache"); }
  };

  void add_layer(const Heads& heads, Element element) {
    const Shape shape{slots() * capacity_, heads.key_value * heads.dim};
    layers_.push_back({heads, memory_->keep(Category::state, shape, element), memory_->keep(Category::state, shape, element)});
  }
  View slot(const View& all, Extent slot) const { return all.rows({slot * capacity_, (slot + 1) * capacity_}); }
  void run(const Layer& layer, View qkv, Sequences sequences, View y) {
    const Heads& h = layer.heads;
    const Extent queries = h.query * h.dim, width = h.key_value * h.dim;
    caches_.clear();
    for (Extent s = 0; s < sequences.count(); ++s) {
      const Extent before = lengths_[slots_[s]], after = before + sequences[s].size();
      if (after > capacity_) fail<720>("a sequence of ", after, " tokens in a cache for ", capacity_);
      const View keys = slot(layer.keys, slots_[s]), values = slot(layer.values, slots_[s]), rows = qkv.rows(sequences[s]);
      kernels::copy_columns(rows, {queries, queries + width}, keys.rows({before, after}), {0, width});
      kernels::copy_columns(rows, {queries + width, queries + 2 * width}, values.rows({before, after}), {0, width});
      caches_.push_back({keys, values, after});
    }
    kernels::attention_cached(qkv, h, sequences, caches_, y);
  }

  Memory* memory_;
  Extent capacity_, layer_ = 0;
  std::vector<Extent> lengths_;
  std::vector<Layer> layers_{};
  std::span<const Extent> slots_{};
  std::vector<kernels::KeyValues> caches_{};
};

}  // namespace dsx
