// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a step of the toy GPT-2 must hold and move, written down from the papers and not from the code: bytes by category,
/// elements and bytes on the wire by verb and axes.
///
///     const auto expected = toy::expect_bytes(cell, rank);       // weights, gradients, state, gathered, of which padding
///     const toy::Wire wire = toy::expect_wire(cell, rank, step);
#pragma once

#include "toy_gpt2.hpp"

#include <bit>
#include <map>

namespace toy {

enum class Sharding { replicate, zero_1, zero_2, zero_3, hpz, mics };
enum class Schedule { single, gpipe, one_forward_one_backward, interleaved };  // the last with two chunks a stage
enum class Rule { sgd, adamw, muon, one_bit_adam };

struct Cell {
  Sharding sharding = Sharding::replicate;
  Degrees degrees{};
  Schedule schedule = Schedule::single;
  Extent micro_batches = 1;
  bool recompute = false;
  Rule rule = Rule::sgd;
  Elements elements{Element::f64, Element::f64, Element::f64};
  std::array<Tier, kinds> rests{};  // by kind
  Codecs codecs{};
  bool reproducible = false;

  bool resident() const { return rests == std::array<Tier, kinds>{}; }
  Tier tier(Kind kind) const { return rests[Extent(kind)]; }
  Extent ranks() const { return degrees.ranks(); }
  Extent chunks() const { return schedule == Schedule::interleaved && degrees.pipe > 1 ? 2 : 1; }
  bool split() const { return degrees.token_split && degrees.tensor > 1; }
  Feed feed() const { return {degrees.data, micro_batches}; }
};

inline std::string name_of(Sharding s) {
  constexpr const char* names[] = {"Replicate", "ZeRO-1", "ZeRO-2", "ZeRO-3", "hpZ", "MiCS"};
  return names[int(s)];
}
inline std::string name_of(Rule r) {
  constexpr const char* names[] = {"SGD", "AdamW", "Muon", "1-bit Adam"};
  return names[int(r)];
}
inline std::string name_of(const Cell& c) {
  const auto& d = c.degrees;
  std::string text = concat(name_of(c.sharding), ", ", name_of(c.rule), ", data ", d.data);
  if (d.inner > 1) text += concat(" (inner ", d.inner, ")");
  text += concat(", tensor ", d.tensor, c.split() ? " by tokens" : "", ", pipe ", d.pipe);
  constexpr const char* schedules[] = {"", " GPipe", " 1F1B", " interleaved"};
  text += schedules[int(c.schedule)];
  text += concat(", micro-batches ", c.micro_batches, c.recompute ? ", recompute" : "", ", ", dsx::name_of(c.elements.value));
  constexpr const char* of[] = {"weights", "gradients", "state", "activations"};
  for (Extent k = 0; k < kinds; ++k)
    if (c.rests[k] != Tier::device) text += concat(", ", of[k], " on the ", tier_names[Extent(c.rests[k])]);
  const std::pair<const char*, const Codec*> packed[] = {{"gather", c.codecs.gather}, {"reduction", c.codecs.reduction}, {"state", c.codecs.state}};
  for (const auto& [site, codec] : packed)
    if (codec) text += concat(", ", codec->name(), " at ", site);
  if (c.codecs.feedback) text += " with feedback";
  if (c.reproducible) text += ", reproducible";
  return text;
}

/// Where a rank stands: tensor counts fastest, then data, then pipe.
struct Place {
  Extent tensor, data, stage;
};
/// A data coordinate counts the near ranks as its most significant digit.
inline Place place_of(const Degrees& d, Rank rank) {
  const Extent near = rank / d.tensor % d.inner, far = rank / d.tensor / d.inner % (d.data / d.inner);
  return {rank % d.tensor, near * (d.data / d.inner) + far, rank / d.tensor / d.data};
}

/// The units of each chunk of a stage: the chunks of all stages take turns through the model.
inline std::vector<Range> chunks_of(const Cell& c, Extent stage) {
  std::vector<Range> all;
  for (Extent chunk = 0; chunk < c.chunks(); ++chunk) all.push_back(share({0, units}, c.chunks() * c.degrees.pipe, chunk * c.degrees.pipe + stage));
  return all;
}

/// Over which axes a policy cuts, as its paper says.
struct CutOver {
  Axes forward = Axes::none, backward = Axes::none, gradients = Axes::none, state = Axes::none;
};
inline CutOver cuts_of(Sharding s) {
  switch (s) {
    case Sharding::replicate:
      return {};
    case Sharding::zero_1:
      return {.state = Axes::data};
    case Sharding::zero_2:
      return {.gradients = Axes::data, .state = Axes::data};
    case Sharding::zero_3:
      return {Axes::data, Axes::data, Axes::data, Axes::data};
    case Sharding::hpz:
      return {Axes::data, Axes::inner, Axes::data, Axes::data};
    case Sharding::mics:
      return {Axes::inner, Axes::inner, Axes::inner, Axes::inner};
  }
  return {};
}
inline Extent ranks_over(const Degrees& d, Axes axes) {
  Extent n = 1;
  if (within(Axes::outer, axes)) n *= d.data / d.inner;
  if (within(Axes::inner, axes)) n *= d.inner;
  if (within(Axes::expert_data, axes)) n *= d.data / d.expert;
  if (within(Axes::tensor, axes)) n *= d.tensor;
  if (within(Axes::pipe, axes)) n *= d.pipe;
  return n;
}

/// The parameters of one unit (of several: a tied table) that are treated alike.
struct Class {
  std::vector<Extent> units{};       // on this stage
  Extent elements = 0, padding = 0;  // on this tensor rank
  bool uncut_use = false;            // its use sees only some tokens where tokens are split
  bool on_two_stages = false;
  std::vector<Extent> matrices{};  // whole
  bool whole_matrices = false;     // that the tensor axis doesn't cut
  bool stacked = false;            // over the expert axis: its copies lie along expert_data
  Extent size() const { return elements + padding; }
};
inline std::vector<Class> classes_of(const Cell& c, Rank rank) {
  const auto& d = c.degrees;
  const auto [tensor, data, stage] = place_of(d, rank);
  const auto here = [chunks = chunks_of(c, stage)](Extent unit) {
    return std::any_of(chunks.begin(), chunks.end(), [unit](Range r) { return r.contains(unit); });
  };
  const Extent t = d.tensor, my_heads = share({0, heads}, t, tensor).size() * (width / heads), my_hidden = share({0, hidden}, t, tensor).size();
  std::vector<Class> all;
  const auto add = [&](Extent unit, Extent elements, bool uncut_use, std::vector<Extent> matrices = {}) {
    if (here(unit)) all.push_back({{unit}, elements, 0, uncut_use, false, std::move(matrices)});
  };
  // The table stands at both ends.
  Class table{.elements = share({0, vocabulary}, t, tensor).size() * width, .on_two_stages = d.pipe > 1};
  if (here(0)) table.units.push_back(0);
  if (here(units - 1)) table.units.push_back(units - 1);
  if (!table.units.empty()) all.push_back(table);
  add(0, length * width, true);
  for (Extent b = 1; b <= blocks; ++b) {
    add(b, 6 * width, true);                  // two norms, two biases behind a sum
    add(b, 3 * my_heads + my_hidden, false);  // biases of cut columns
    add(b, 4 * width * my_heads + 2 * width * my_hidden, false, {3 * width * width, width * width, width * hidden, width * hidden});
  }
  // The unused parameter has no use that could leave its gradient partial.
  if (c.split())
    add(units - 1, spare, false), add(units - 1, 2 * width, true);
  else
    add(units - 1, spare + 2 * width, true);
  for (Class& k : all) k.padding = round_up(k.elements, d.data * d.tensor) - k.elements;
  return all;
}

/// A packed reduction over some axes, of so many elements: near ranks first, where there are near and far ones.
struct Hop {
  Axes axes;
  Extent ranks, elements;
  /// Rows for all ranks of the hop.
  Extent packed(const Codec& codec) const { return ranks * codec.packed_bytes(elements / ranks); }
};
inline std::vector<Hop> hops_of(const Degrees& d, Axes axes, Extent elements) {
  const bool two = axes == Axes::data && d.inner > 1 && d.inner < d.data;
  std::vector<Hop> hops;
  for (const Axes hop : two ? std::vector{Axes::inner, Axes::outer} : std::vector{axes}) {
    const Extent ranks = ranks_over(d, hop);
    if (ranks > 1) hops.push_back({hop, ranks, elements}), elements /= ranks;
  }
  return hops;
}

/// Sums by grains: after m micro-batches of n ranks one waits for each bit of m n; when the last has come there is one.
inline Extent partial_sums(const Cell& c) {
  Extent most = 1;
  for (Extent m = 1; m < c.micro_batches; ++m) most = std::max(most, Extent(std::popcount(m * c.degrees.data)));
  return most;
}

struct Bytes {
  Extent weights = 0, gradients = 0, state = 0, gathered = 0;
  Extent padding = 0;  // of elements to data x tensor ranks, in elements
};
/// Each buffer begins on a line of 64 bytes: that padding is part of the formula. Where something rests changes how much of it there is only
/// in three ways: state that rests elsewhere than the weights has a master of its own; weights off the device are gathered although nothing
/// cuts them; gradients off it are beside the unit that computes them. What travels packed is there packed too; weights that were
/// gathered packed into those at rest have a master; what a reduction owes is of its terms' size, in the wide element, with the gradients.
inline Bytes expect_bytes(const Cell& c, Rank rank, const std::vector<Class>& classes) {
  const auto buffer = [](Extent elements, Element e) { return round_up(elements * bytes_of(e), 64); };
  const CutOver cut = cuts_of(c.sharding);
  const auto over = [&](Axes axes) { return ranks_over(c.degrees, axes); };
  Bytes b;
  std::vector<Extent> forward(units), backward(units), reduced(units), arriving(units);  // of each unit while it computes; while its sum is taken
  for (const Class& k : classes) {
    const Elements e = c.elements;
    b.padding += k.padding;
    b.weights += buffer(k.size() / over(cut.forward), e.value);
    const Codec *gather = c.codecs.gather, *reduction = c.codecs.reduction;
    const Extent parts = over(cut.forward), row = gather ? gather->packed_bytes(k.size() / parts) : 0;
    const bool packs = gather && parts > 1, publishes = gather && over(cut.state - cut.forward) > 1;
    if (cut.forward != cut.backward)
      b.weights += packs ? buffer(parts / over(cut.backward) * row, Element::u8) : buffer(k.size() / over(cut.backward), e.value);
    const bool in_parts = over(cut.gradients) > 1, whole = !in_parts || k.units.size() > 1;
    if (c.reproducible) {
      b.gradients += k.units.size() * partial_sums(c) * buffer(k.size() / c.degrees.data, e.gradient);
      if (over(cut.state) < c.degrees.data) b.gradients += buffer(k.size() / over(cut.state), e.gradient);
    } else {
      if (in_parts) b.gradients += buffer(k.size() / over(cut.gradients), e.gradient);
      if (whole) b.gradients += buffer(k.size(), e.gradient);
    }
    if (publishes || e.master != e.value || c.tier(Kind::state) != c.tier(Kind::weights)) b.state += buffer(k.size() / over(cut.state), e.master);
    const Extent moments = c.rule == Rule::sgd || (c.rule == Rule::muon && !k.matrices.empty()) ? 1 : 2;
    const Extent mine = k.size() / over(cut.state);
    b.state += moments * (c.codecs.state ? buffer(c.codecs.state->packed_bytes(mine), Element::u8) : buffer(mine, e.master));
    const auto owe = [&](Extent elements) { return c.codecs.feedback ? buffer(elements, wide(e.gradient)) : 0; };
    const auto owe_hops = [&](Axes axes, Extent elements) {
      for (const Hop& hop : hops_of(c.degrees, axes, elements)) b.gradients += owe(hop.elements);
    };
    if (reduction) {
      const Axes rest = cut.state - cut.gradients, whole = Axes::data - cut.state;
      owe_hops(cut.gradients, k.size()), owe_hops(rest, k.size() / over(cut.gradients)), owe_hops(whole, mine);
      if (over(whole) > 1) b.gradients += owe(mine / over(whole));
    }
    for (const Extent u : k.units) {
      const bool away = c.tier(Kind::weights) != Tier::device;
      if (over(cut.forward) > 1 || away) forward[u] += buffer(k.size(), e.value);
      if (over(cut.backward) > 1 || away || packs) backward[u] += buffer(k.size(), e.value);
      for (auto* direction : {&forward, &backward}) (*direction)[u] += packs ? buffer(parts * row, Element::u8) : 0;
      if (c.reproducible)
        reduced[u] += (c.degrees.data > 1 ? 2 : 1) * buffer(k.size(), e.gradient);
      else if (!whole || c.tier(Kind::gradients) != Tier::device)
        reduced[u] += buffer(k.size(), e.gradient);
    }
    if (reduction && in_parts) {
      const auto hops = hops_of(c.degrees, cut.gradients, k.size());
      for (Extent i = 0; i < hops.size(); ++i) {
        const Extent copy = c.tier(Kind::gradients) != Tier::device ? owe(hops[i].elements) : 0;
        (i == 0 ? reduced : arriving)[k.units.front()] += 2 * buffer(hops[i].packed(*reduction), Element::u8) + copy;
      }
    }
  }
  // Beside the unit that computes, its neighbour's weights are on their way, and the other neighbour's gradients. The second hop of those
  // sets off when the next but one begins; at the end of a step that of even units first.
  Extent weights = 0, gradients = 0;
  for (const Range chunk : chunks_of(c, place_of(c.degrees, rank).stage))
    for (Extent u = chunk.begin; u < chunk.end; ++u) {
      const auto pair = [&](const std::vector<Extent>& of) { return of[u] + (u + 1 < chunk.end ? of[u + 1] : 0); };
      weights = std::max({weights, pair(forward), pair(backward)}), gradients = std::max(gradients, pair(reduced));
      const bool last_two = u == chunk.begin, second = u + 1 < chunk.end;
      if (second && (!last_two || u % 2 == 1)) gradients = std::max(gradients, pair(reduced) + arriving[u + 1]);
      if (last_two && (!second || u % 2 == 0)) gradients = std::max(gradients, pair(reduced) + arriving[u]);
    }
  b.gathered = weights + gradients;
  return b;
}

/// Elements of whole buffers and bytes through one rank, by verb and axes.
struct Wire {
  struct Row {
    Extent elements = 0;
    double bytes = 0;
    bool operator==(const Row&) const = default;
  };
  std::map<std::pair<Verb, Axes>, Row> rows{};
  bool operator==(const Wire&) const = default;

  void add(Verb verb, Axes axes, Extent ranks, Extent elements, Element element) {
    if (ranks == 1) return;
    const double n = double(elements * bytes_of(element)), others = double(ranks - 1) / double(ranks);
    double bytes = 0;
    if (verb == Verb::all_reduce) bytes = 2 * n * others;
    if (verb == Verb::reduce_scatter || verb == Verb::all_gather || verb == Verb::broadcast) bytes = n * others;
    if (verb == Verb::send || verb == Verb::all_to_all) bytes = n;
    Row& row = rows[{verb, axes}];
    row.elements += elements, row.bytes += bytes;
  }
  static Wire of(const Traffic& traffic) {
    Wire wire;
    for (const Traffic::Row& r : traffic.rows()) wire.add(r.verb, r.axes, r.ranks, r.elements, r.element);
    return wire;
  }
  /// Of the rows that differ from another wire's.
  std::string unlike(const Wire& other) const {
    std::string text;
    for (const auto& [key, row] : rows) {
      const auto found = other.rows.find(key);
      const Row theirs = found == other.rows.end() ? Row{} : found->second;
      // Sums of fractions of a byte may be taken in another order.
      if (row.elements == theirs.elements && std::abs(row.bytes - theirs.bytes) <= 1e-9 * row.bytes) continue;
      text += concat(text.empty() ? "" : ", ", dsx::name_of(key.first), " over ", to_text(key.second), " ", row.elements, " elements, ", row.bytes,
                     " bytes");
    }
    return text;
  }
};

/// What a block's layers move: branches that begin in a fan_out and end in a fan_in, and mixtures, of which each token goes to so many experts.
struct Branches {
  Extent plain = 2, mixtures = 0, choices = 0;
};

/// What a rank moves in one step with the live rows of its micro-batches.
inline Wire expect_wire(const Cell& c, Rank rank, const std::vector<MicroBatch>& batches, const std::vector<Class>& classes,
                        const Branches& of = {}) {
  const auto& d = c.degrees;
  const auto [value, gradient, master] = c.elements;
  const CutOver cut = cuts_of(c.sharding);
  const auto [tensor, data, stage] = place_of(d, rank);
  Wire wire;
  const auto add = [&](Verb verb, Axes axes, Extent elements, Element e) { wire.add(verb, axes, ranks_over(d, axes), elements, e); };
  const Axes world = Axes::data | Axes::tensor | Axes::pipe;
  add(Verb::all_reduce, Axes::data, 2, Element::f64);  // counts of targets
  add(Verb::all_reduce, world, c.reproducible ? 2 * (68 + 1) : 2, Element::f64);  // norm and loss, as numbers or in limbs

  for (const Class& k : classes) {
    const auto copies = [&k](Axes axes) { return k.stacked && axes == Axes::data ? Axes::expert_data : axes; };
    const CutOver own{copies(cut.forward), copies(cut.backward), copies(cut.gradients), copies(cut.state)};
    const Extent times = c.micro_batches * k.units.size();
    const Codec *gather = c.codecs.gather, *reduction = c.codecs.reduction;
    /// Of parts that each rank packs alone, or as they are.
    const auto gathers = [&](Axes axes, Extent repeated, Extent parts, Extent elements, const Codec* codec, Element e) {
      codec ? add(Verb::all_gather, axes, repeated * parts * codec->packed_bytes(elements / parts), Element::u8)
            : add(Verb::all_gather, axes, repeated * elements, e);
    };
    const Extent forward = ranks_over(d, own.forward);
    for (const Axes axes : {own.forward, own.backward}) gathers(axes, times, forward, k.size(), forward > 1 ? gather : nullptr, value);
    Extent held = k.size();  // elements of the gradient still here
    const auto scatter = [&](Axes axes, Extent repeated) {
      if (reduction)
        for (const Hop& hop : hops_of(d, axes, held))
          add(Verb::all_to_all, hop.axes, repeated * (hop.packed(*reduction) - hop.packed(*reduction) / hop.ranks), Element::u8);
      else
        add(Verb::reduce_scatter, axes, repeated * held, gradient);
      held /= ranks_over(d, axes);
    };
    const Axes data = copies(Axes::data), whole = data - own.state;
    if (c.reproducible) {
      held /= ranks_over(d, data);
      add(Verb::all_to_all, data, times * (k.size() - held), gradient);
      if (c.split() && k.uncut_use) {
        add(Verb::all_to_all, Axes::tensor, held - held / d.tensor, gradient);
        add(Verb::all_gather, Axes::tensor, held, gradient);
      }
      if (k.on_two_stages) wire.add(Verb::broadcast, Axes::pipe, 2, 2 * held, gradient);  // the sum of each use, from its stage
      add(Verb::all_gather, whole, k.size() / ranks_over(d, own.state), gradient);
    } else {
      scatter(own.gradients, c.micro_batches);
      scatter(own.state - own.gradients, 1);
      if (reduction) {
        const Extent mine = held;
        scatter(whole, 1), held = mine;
        gathers(whole, 1, ranks_over(d, whole), held, reduction, gradient);
      } else {
        add(Verb::all_reduce, whole, held, gradient);
      }
      if (c.split() && k.uncut_use) add(Verb::all_reduce, Axes::tensor, held, gradient);
      if (k.on_two_stages) wire.add(Verb::all_reduce, Axes::pipe, 2, held, gradient);  // however many stages are between
    }
    const Axes published = own.state - own.forward;
    gathers(published, 1, ranks_over(d, published), k.size() / forward, gather, value);
    const Axes owners = own.state | (k.whole_matrices ? Axes::none : Axes::tensor);
    if (c.rule == Rule::muon)
      for (const Extent whole : k.matrices)
        for (const Verb verb : {Verb::all_reduce, Verb::broadcast}) add(verb, owners, whole, master);
  }

  Extent branches = 0, mixtures = 0, neighbours = 0;
  bool first = false, last = false;
  for (const Range chunk : chunks_of(c, stage)) {
    const Extent mine = overlap(chunk, {1, units - 1}).size();
    branches += of.plain * mine, mixtures += of.mixtures * mine;
    first = first || chunk.begin == 0, last = last || chunk.end == units;
    neighbours += (chunk.begin > 0) + (chunk.end < units);
  }
  const Extent fan_ins = branches + first, fan_outs = branches + last;
  const Extent plays = c.recompute ? 2 : 1;
  for (const MicroBatch& batch : batches) {
    const Extent whole = batch.rows() * width, mine = c.split() ? share({0, batch.rows()}, d.tensor, tensor).size() * width : whole;
    if (c.split()) {
      add(Verb::reduce_scatter, Axes::tensor, (fan_ins * plays + fan_outs) * whole, value);
      add(Verb::all_gather, Axes::tensor, (fan_outs * plays + fan_ins) * whole, value);
    } else {
      add(Verb::all_reduce, Axes::tensor, (fan_ins * plays + fan_outs) * whole, value);
    }
    // Experts see whole rows, expert by expert; tokens that are split are gathered for them, and their answers' gradients.
    add(Verb::all_reduce, Axes::tensor, mixtures * (plays + 1) * of.choices * whole, value);
    if (c.split()) add(Verb::all_gather, Axes::tensor, mixtures * (plays + 1) * whole, value);
    if (last) add(Verb::all_reduce, Axes::tensor, 3 * batch.rows(), wide(value));  // a softmax's maximum, sum and target
    for (const Verb verb : {Verb::send, Verb::receive}) add(verb, Axes::pipe, neighbours * mine, value);
  }
  return wire;
}

}  // namespace toy
