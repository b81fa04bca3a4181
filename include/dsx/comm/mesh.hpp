// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The world folded into axes: data (outer x inner), tensor, pipe, and across data expert x expert_data: neighbouring data ranks share out
/// the experts, and every `expert`th has the same ones.
///
///     Mesh mesh{session, {.data = 2, .tensor = 2, .pipe = 2}};
///     mesh.along(Axes::data).all_reduce(x).wait();
#pragma once

#include <dsx/comm/session.hpp>

namespace dsx {

/// How many ranks share each axis. Of `data` ranks, `inner` are near each other. `token_split` cuts the residual
/// stream by tokens over the tensor axis (sequence parallelism, Korthikanti et al. 2022): no layer and no type knows.
struct Degrees {
  Extent data = 1, inner = 1, tensor = 1, pipe = 1, expert = 1;
  bool token_split = false;
  constexpr Extent ranks() const { return data * tensor * pipe; }
};

class Mesh {
 public:
  Mesh(Session& session, Degrees degrees) : degrees_{degrees}, session_{&session} {
    for (const auto& [name, n] :
         {std::pair{"data", degrees.data}, {"inner", degrees.inner}, {"tensor", degrees.tensor}, {"pipe", degrees.pipe}, {"expert", degrees.expert}})
      if (n == 0) fail<312>("the mesh axis ", name, " has no ranks; the least is 1");
    if (degrees.ranks() != session.ranks())
      fail<310>("data ", degrees.data, " x tensor ", degrees.tensor, " x pipe ", degrees.pipe, " = ", degrees.ranks(), ", but there are ",
                session.ranks(), " ranks");
    if (degrees.data % degrees.inner != 0 || degrees.data % degrees.expert != 0)
      fail<311>("inner ", degrees.inner, " and expert ", degrees.expert, " must divide data ", degrees.data);
    for (const Axes set : sets) along_[unsigned(set)] = communicator(set), known_[unsigned(set)] = true;
    world_ = communicator(Axes::data | Axes::tensor | Axes::pipe);
  }

  const Communicator& along(Axes axes) const {
    if (!known_[unsigned(axes)])
      fail<312>("no ranks are known along ", to_text(axes), "; ask for one axis, or for data, outer, inner, expert or expert_data with tensor");
    return along_[unsigned(axes)];
  }
  /// A communicator of its own among the same ranks, whose messages don't mix with others'. Called by all of them.
  Communicator another(Axes axes) const { return communicator(axes); }
  const Communicator& world() const { return world_; }
  Extent size(Axes axes) const { return along(axes).size(); }
  /// Mixed radix, inner before outer before tensor: a part over a subset of axes contains the parts over more.
  Extent coordinate(Axes axes) const { return along(axes).rank(); }
  Range part(Axes axes, Extent whole) const { return along(axes).part(whole); }
  bool token_split() const { return degrees_.token_split && degrees_.tensor > 1; }
  const Degrees& degrees() const { return degrees_; }
  Session& session() const { return *session_; }

  /// The ranks with this one's data and tensor coordinates on some of the pipeline's stages: where a tied parameter
  /// lives. Ranks that are on several such sets ask for them in one order; a rank on none gets a group of one.
  Communicator stages(const std::vector<Extent>& stages) const {
    const bool here = std::find(stages.begin(), stages.end(), digit(Axes::pipe, session_->rank())) != stages.end();
    if (!here) return {};
    return among([&](Rank r) {
      const bool there = std::find(stages.begin(), stages.end(), digit(Axes::pipe, r)) != stages.end();
      return there && digit(Axes::data, r) == digit(Axes::data, session_->rank()) && digit(Axes::tensor, r) == digit(Axes::tensor, session_->rank());
    }, Axes::pipe);
  }

 private:
  /// Every set of axes that a residency, a reduction or a schedule may name.
  static constexpr Axes sets[] = {
      Axes::none, Axes::outer, Axes::inner, Axes::data, Axes::tensor, Axes::pipe, Axes::expert, Axes::expert_data,
      Axes::expert_outer, Axes::expert_inner,
      Axes::outer | Axes::tensor, Axes::inner | Axes::tensor, Axes::data | Axes::tensor,
      Axes::expert | Axes::tensor, Axes::expert_data | Axes::tensor, Axes::expert_outer | Axes::tensor, Axes::expert_inner | Axes::tensor,
      Axes::data | Axes::expert, Axes::expert | Axes::expert_data,
      Axes::data | Axes::pipe};

  Extent extent(Axes axis) const {
    switch (axis) {
      case Axes::outer: return degrees_.data / degrees_.inner;
      case Axes::inner: return degrees_.inner;
      case Axes::data: return degrees_.data;
      case Axes::tensor: return degrees_.tensor;
      case Axes::pipe: return degrees_.pipe;
      case Axes::expert: return degrees_.expert;
      case Axes::expert_outer: return degrees_.data / degrees_.expert / extent(Axes::expert_inner);
      case Axes::expert_inner: return degrees_.inner % degrees_.expert == 0 ? degrees_.inner / degrees_.expert : 1;
      default: return 1;
    }
  }
  /// World ranks count tensor fastest, then inner, outer, pipe. Data is inner-major: see coordinate(). Experts are shared out among
  /// neighbours in the world, within near ranks where those are enough, for tokens travel in every layer.
  Extent digit(Axes axis, Rank rank) const {
    const Extent near = rank / degrees_.tensor % degrees_.inner;
    const Extent far = rank / degrees_.tensor / degrees_.inner % extent(Axes::outer);
    const Extent data = near * extent(Axes::outer) + far, neighbour = far * degrees_.inner + near;
    switch (axis) {
      case Axes::outer: return far;
      case Axes::inner: return near;
      case Axes::data: return data;
      case Axes::tensor: return rank % degrees_.tensor;
      case Axes::pipe: return rank / degrees_.tensor / degrees_.data;
      case Axes::expert: return neighbour % degrees_.expert;
      case Axes::expert_outer: return neighbour / degrees_.expert / extent(Axes::expert_inner);
      case Axes::expert_inner: return neighbour / degrees_.expert % extent(Axes::expert_inner);
      default: return 0;
    }
  }
  Extent place(Axes axes, Rank rank) const {
    Extent place = 0;
    for (const Axes axis : {Axes::inner, Axes::outer, Axes::expert_inner, Axes::expert_outer, Axes::expert, Axes::tensor, Axes::pipe})
      if (any(axes & axis)) place = place * extent(axis) + digit(axis, rank);
    return place;
  }
  Communicator communicator(Axes axes) const {
    const bool by_expert = any(axes & (Axes::expert | Axes::expert_data));
    const Axes all = (by_expert ? Axes::expert | Axes::expert_data : Axes::data) | Axes::tensor | Axes::pipe;
    return among([&](Rank r) { return place(all - axes, r) == place(all - axes, session_->rank()); }, axes);
  }
  Communicator among(auto belongs, Axes order) const {
    std::vector<Rank> members;
    for (Rank r = 0; r < session_->ranks(); ++r)
      if (belongs(r)) members.push_back(r);
    std::sort(members.begin(), members.end(), [&](Rank a, Rank b) { return place(order, a) < place(order, b); });
    if (members.size() == 1) return {session_->is_dry() ? dry_transport(0, 1) : self_transport(), order};
    return {session_->world()->among(members), order};
  }

  Degrees degrees_;
  Session* session_;
  std::array<Communicator, 256> along_{};
  std::array<bool, 256> known_{};
  Communicator world_{};
};

}  // namespace dsx
