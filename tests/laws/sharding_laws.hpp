// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of a sharding policy: it answers alike on every rank, its axes nest, the ranks' shares cover each element exactly once,
/// and gathering what was cut gives back the original bits.
///
///     laws::sharding(ZeRO<3>{});
#pragma once

#include "law.hpp"
#include "support/runs.hpp"

#include <bit>

namespace laws {

using namespace toy;

inline std::vector<Degrees> sharding_degrees() {
  return {{},
          {.data = 2},
          {.data = 4, .inner = 2},
          {.data = 2, .inner = 2, .tensor = 2},
          {.data = 2, .tensor = 2, .token_split = true},
          {.data = 2, .pipe = 2}};
}
inline AnyRecipe with_sharding(const AnySharding& sharding) { return {sharding, GPipe{}}; }

/// f(weights, rank) for dry weights of each rank, one after another.
inline void on_each_dry_rank(const Degrees& degrees, const AnySharding& sharding, auto f) {
  for (Rank rank = 0; rank < degrees.ranks(); ++rank) {
    Session session = Session::dry(rank, degrees.ranks());
    const Mesh mesh{session, degrees};
    const Weights weights{mesh, make_model(), with_sharding(sharding)};
    f(weights, rank);
  }
}

/// A bit pattern for each element that no sum of others gives: signs of zero and NaNs with payloads among them.
inline float odd_bits(const std::string& path, Extent index) { return std::bit_cast<float>(std::uint32_t(hash_of(path, index))); }

/// Every element is counted by one rank, has its state on as many as the mesh leaves uncut, and rests as the residency says.
inline void shares_cover(const Degrees& degrees, const AnySharding& sharding) {
  // By path: how many ranks count, update and rest each element of the whole parameter.
  struct Cover {
    std::vector<int> counted, updated, rested;
    Residency where;
    bool cut = false;
    int stages = 0;  // that hold it
  };
  std::map<std::string, Cover> covers;
  std::vector<std::pair<Extent, std::string>> held;  // by stage
  on_each_dry_rank(degrees, sharding, [&](const auto& weights, Rank) {
    for (const Bundle& b : weights.bundles().all())
      for (const Segment& s : b.segments) {
        Cover& c = covers
                       .try_emplace(s.path, Cover{std::vector<int>(s.part.whole.size()), std::vector<int>(s.part.whole.size()),
                                                  std::vector<int>(s.part.whole.size()), b.where})
                       .first->second;
        LAW(c.where == b.where, s.path, ": another answer on another rank");
        c.cut = s.held.split;
        if (const std::pair at{weights.mesh().coordinate(Axes::pipe), s.path}; std::find(held.begin(), held.end(), at) == held.end())
          held.push_back(at), ++c.stages;
        LAW(within(b.where.forward | b.where.gradients, b.where.state), s.path, ": weights or gradients are cut over axes that don't cut the state");
        LAW(b.resting.begin <= b.mine.begin && b.mine.end <= b.resting.end, s.path, ": weights that a rank updates don't rest with it");
        LAW(within(b.where.state, b.kind.summed_over - Axes::tensor), s.path, ": the state is cut over axes that don't sum the gradient");
        const auto mark = [&](Range range, std::vector<int>& count) { each_element(b, s, range, [&](Extent, Extent index) { ++count[index]; }); };
        mark(b.counted, c.counted), mark(b.mine, c.updated), mark(b.resting, c.rested);
      }
  });
  for (const auto& [path, c] : covers) {
    const auto all = [&](const std::vector<int>& count, Extent expected) {
      return std::all_of(count.begin(), count.end(), [&](int n) { return n == int(expected); });
    };
    const Extent copies = degrees.data * (c.cut ? 1 : degrees.tensor) * Extent(c.stages);
    LAW(all(c.counted, 1), path, " of ", c.counted.size(), " elements: not each is counted once");
    LAW(all(c.updated, copies / ranks_over(degrees, c.where.state)), path, ": not each element is updated where the axes say");
    LAW(all(c.rested, copies / ranks_over(degrees, c.where.forward)), path, ": not each element rests where the axes say");
  }
}

/// What a layer sees after acquire() are the assigned bits, forward and backward.
inline void gathers_bits(const Degrees& degrees, const AnySharding& sharding) {
  Complaints complaints;
  launch_threads(degrees.ranks(), [&](Session& session) {
    const Mesh mesh{session, degrees};
    Weights weights{mesh, make_model(), with_sharding(sharding)};
    // Room for what is gathered: a dry twin measures it.
    Session twin = session.dry_twin();
    const Mesh dry_mesh{twin, degrees};
    auto dry_weights = weights.on(dry_mesh);
    const auto acquire = [](auto& of, auto look) {
      for (const Direction direction : {Direction::forward, Direction::backward})
        for (Unit u = Unit(of.ranges().front().begin); u < of.ranges().front().end; ++u) {
          of.bundles().acquire(u, direction);
          look(u);
          of.bundles().release(u);
        }
    };
    acquire(dry_weights, [](Unit) {});
    session.memory.reserve_as(twin.memory);
    for (const ParameterRecord& r : weights.records()) {
      std::vector<float> whole(r.shape.size());
      for (Extent i = 0; i < whole.size(); ++i) whole[i] = odd_bits(r.path, i);
      weights.assign(r.path, std::span<const float>{whole});
    }
    acquire(weights, [&](Unit u) {
      for (const Bundle& b : weights.bundles().all())
        for (const Segment& s : b.segments) {
          if (std::find(b.units.begin(), b.units.end(), u) == b.units.end()) continue;
          for (Extent i = 0; i < s.part.local.size(); ++i)
            if (std::bit_cast<std::uint32_t>(s.held.weight.as<float>()[i]) != std::bit_cast<std::uint32_t>(odd_bits(s.path, s.part.whole_index(i)))) {
              complaints.add(s.path, " element ", i, " of rank ", session.rank(), " came back with other bits");
              break;
            }
        }
    });
  });
  const auto wrong = complaints.take();
  LAW(wrong.empty(), text_of(wrong));
}

template <ShardingPolicy P>
void sharding(const P& policy) {
  for (const Degrees& degrees : sharding_degrees()) {
    // The same object answers on every rank of one process, as it does for ranks that are threads.
    const AnySharding held{policy};
    shares_cover(degrees, held);
    if (first_broken && !first_broken->empty()) return;  // ranks that disagree would not even meet in a collective
    gathers_bits(degrees, held);
  }
}

}  // namespace laws
