// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Updates a bundle where its optimizer state rests: what else the update reads is copied there, new weights are copied back.
///
///     update_where_state_rests(session, bundle, [&](Bundle& b) { optimizer.update(b, verdict, mesh); });
///
/// State that rests packed is unpacked for the update, and packed again. The optimizer notices nothing: off the device scratch is the
/// host's, and kernels run there.
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/weights/bundle.hpp>

#include <optional>

namespace dsx {

namespace detail {

/// Shows another view under a name for a while.
class [[nodiscard]] Instead {
 public:
  Instead(View& name, const View& other) : name_{&name}, before_{std::exchange(name, other)} {}
  Instead(const Instead&) = delete;
  Instead& operator=(const Instead&) = delete;
  ~Instead() { *name_ = before_; }

 private:
  View* name_;
  View before_;
};

void with_states(Session& session, Bundle& b, auto& f, Extent i = 0) {
  if (i == b.states.size()) return f();
  const OpenedHere state{session.memory, b.states[i], Access::update};
  if (!b.codecs.state) return with_states(session, b, f, i + 1);
  const View packed = b.states[i], values = session.memory.scratch.take({b.mine.size(), 1}, b.elements.master);
  session.launch(unpack_state, *b.codecs.state, packed, values, bool(b.squares[i]));
  {
    const Instead unpacked{b.states[i], values};
    with_states(session, b, f, i + 1);
  }
  session.launch(kernels::zero, values.part(b.padding_of_mine()));
  session.launch(pack_state, *b.codecs.state, values, packed, bool(b.squares[i]));
}

}  // namespace detail

void update_where_state_rests(Session& session, Bundle& b, auto update) {
  const bool at_host = b.away(Kind::state);
  if (!at_host && !b.away(Kind::gradients) && !b.away(Kind::weights) && !b.codecs.state) return update(b);
  Memory& memory = session.memory;
  std::optional<HostScope> host;
  if (at_host) host.emplace(session);
  const ScratchScope scope{memory};

  const OpenedHere master{memory, b.own_master, Access::update};
  const Opened gradient{memory, b.reduced, Access::read}, slice{memory, b.slice(), Access::update};
  View reduced = gradient.view(), updated = slice.view();
  if (b.away(Kind::gradients) != at_host) session.move(b.reduced, reduced = memory.scratch.take(b.reduced.shape, b.reduced.element));
  const bool brought_back = b.away(Kind::weights) != at_host;
  if (brought_back) updated = b.elements.value == b.elements.master ? b.own_master : memory.scratch.take(updated.shape, updated.element);

  const detail::Instead reduced_here{b.reduced, reduced}, updated_here{b.updated, updated};
  const auto run = [&] { update(b); };
  detail::with_states(session, b, run);
  if (brought_back) session.move(updated, slice.view());
}

/// Every trained bundle's, one after the other; what the next one needs from the disk sets off before.
void update_where_states_rest(Session& session, std::deque<Bundle>& bundles, auto update) {
  for (auto b = bundles.begin(); b != bundles.end(); ++b) {
    if (!b->kind.trained) continue;
    if (const auto next = std::find_if(b + 1, bundles.end(), [](const Bundle& n) { return n.kind.trained; }); next != bundles.end()) {
      for (const View& v : {next->own_master, next->reduced, next->slice()}) session.memory.ahead(v);
      for (const View& v : next->states) session.memory.ahead(v);
    }
    update_where_state_rests(session, *b, update);
  }
}

}  // namespace dsx
