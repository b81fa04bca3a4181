// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What all transports share: the checks of one call, its text in messages, and the comparison of all ranks' calls.
///
///     check(call, rank, size);                                   // throws where this rank's buffers don't fit the verb
///     if (auto text = difference(first, second)) fail<502>(*text);
#pragma once

#include <dsx/comm/communicator.hpp>

#include <algorithm>
#include <optional>
#include <string>

namespace dsx::host {

/// A call without its buffers: what ranks compare, and what travels between processes.
struct CallSummary {
  Rank rank = 0;  // of the world, as messages name it
  Verb verb{};
  Combine combine{};
  Element element{};
  Axes axes{};
  Shape whole{};
  Rank peer = 0;
  std::string_view file{};
  std::uint32_t line = 0;
};

inline CallSummary summary(const Call& call, Rank rank) {
  const View& whole = call.whole();
  return {rank, call.verb, call.combine, whole.element, call.axes, whole.shape, call.peer, call.site.file_name(), call.site.line()};
}

inline bool is_collective(Verb v) { return v != Verb::send && v != Verb::receive; }
inline bool combines(Verb v) { return v == Verb::all_reduce || v == Verb::reduce_scatter; }
inline bool cuts_rows(Verb v) { return v == Verb::reduce_scatter || v == Verb::all_gather; }

/// "all_reduce of 12 f32 over data at trainer.cpp:40".
inline std::string to_text(const CallSummary& c) {
  std::string text{name_of(c.verb)};
  if (combines(c.verb) && c.combine == Combine::max) text += " (max)";
  if (c.verb != Verb::barrier) {
    text += concat(" of ", c.whole.size());
    if (c.whole.rows > 1 && c.whole.columns > 1) text += concat(" (", c.whole.rows, " x ", c.whole.columns, ")");
    text += concat(" ", name_of(c.element));
  }
  if (c.verb == Verb::broadcast || c.verb == Verb::receive) text += concat(" from ", c.peer);
  if (c.verb == Verb::send) text += concat(" to ", c.peer);
  if (any(c.axes)) text += concat(" over ", to_text(c.axes));
  return text + concat(" at ", c.file, ":", c.line);
}
inline std::string to_text(const Call& call) { return to_text(summary(call.stands_for ? *call.stands_for : call, 0)); }

/// Why two ranks' calls of one collective can't be the same; the text of dsx-E502.
inline std::optional<std::string> difference(const CallSummary& a, const CallSummary& b) {
  const bool sized = a.verb != Verb::barrier;
  const bool same = a.verb == b.verb && (!sized || (a.whole.size() == b.whole.size() && a.element == b.element)) &&
                    (!cuts_rows(a.verb) || a.whole.rows == b.whole.rows) && (!combines(a.verb) || a.combine == b.combine) &&
                    (a.verb != Verb::broadcast || a.peer == b.peer);
  if (same) return std::nullopt;
  return concat("rank ", a.rank, " calls ", to_text(a), "; rank ", b.rank, " calls ", to_text(b));
}

/// Why a message doesn't fit its receiver; the text of dsx-E503.
inline std::optional<std::string> misfit(const CallSummary& sent, const CallSummary& received) {
  if (sent.whole.size() == received.whole.size() && sent.element == received.element) return std::nullopt;
  return concat("rank ", sent.rank, " calls ", to_text(sent), "; rank ", received.rank, " calls ", to_text(received));
}

/// The rows of the whole that a rank takes, as elements.
inline Range part_of(const View& whole, Extent ranks, Rank rank) {
  const Range rows = share({0, whole.shape.rows}, ranks, rank);
  return {rows.begin * whole.shape.columns, rows.end * whole.shape.columns};
}

/// Calls f(T{}) with the type that sums and maxima are taken over; dsx-E508 for every other element.
template <class F>
decltype(auto) dispatch_combinable(Element e, Verb verb, F&& f) {
  switch (e) {
    case Element::f32: return f(float{});
    case Element::f64: return f(double{});
    case Element::bf16: return f(bf16{});
    case Element::i32: return f(std::int32_t{});
    case Element::u32: return f(std::uint32_t{});
    case Element::i64: return f(std::int64_t{});
    case Element::u64: return f(std::uint64_t{});
    default: fail<508>(name_of(verb), " can't combine ", name_of(e), " elements; f32, f64, bf16, i32, u32, i64 and u64 are known");
  }
}

/// Refuses what no rank could serve, on the rank that asks for it.
inline void check(const Call& call, Rank rank, Extent ranks, bool dry = false) {
  const auto refuse = [&](const auto&... why) { fail<507>("rank ", rank, " of ", ranks, " calls ", to_text(call), ": ", why...); };
  if (!is_collective(call.verb) || call.verb == Verb::broadcast) {
    if (call.peer >= ranks) fail<509>("rank ", rank, " of ", ranks, " calls ", to_text(call), ", but there is no such rank");
    if (!is_collective(call.verb) && call.peer == rank) fail<509>("rank ", rank, " of ", ranks, " calls ", to_text(call), ", which is itself");
  }
  if (call.verb == Verb::barrier) return;
  if (combines(call.verb)) dispatch_combinable(call.in.element, call.verb, [](auto) {});
  for (const View& v : {call.in, call.out}) {
    if (!dry && !v.data && v.size() > 0) refuse("a buffer of ", v.size(), " elements has no memory");
    if (!dry && v.place != Place::cpu) refuse("its buffer isn't in the host's memory");
  }
  if (call.in.element != call.out.element) refuse("it reads ", name_of(call.in.element), " and writes ", name_of(call.out.element));
  if (!cuts_rows(call.verb)) {
    if (call.in.size() != call.out.size()) refuse("it reads ", call.in.size(), " elements and writes ", call.out.size());
    return;
  }
  const View& whole = call.whole();
  const View& part = call.verb == Verb::all_gather ? call.in : call.out;
  const Range mine = part_of(whole, ranks, rank);
  if (part.size() != mine.size()) refuse("this rank's part has ", mine.size(), " elements, its buffer ", part.size());
  const auto *w = whole.pointer<std::byte>(), *p = part.pointer<std::byte>();
  const bool apart = dry || part.size() == 0 || p + part.bytes() <= w || w + whole.bytes() <= p;
  if (!apart && p != w + mine.begin * bytes_of(whole.element)) refuse("its buffers overlap otherwise than as whole and own part");
}

/// The ranks of a new group in terms of its parent's; the answer is this rank's place in it.
inline Rank place_among(const std::vector<Rank>& members, Rank rank, Extent ranks) {
  Rank place = members.size();
  for (Rank i = 0; i < members.size(); ++i) {
    if (members[i] >= ranks) fail<510>("member ", members[i], " of a group among ", ranks, " ranks");
    if (std::find(members.begin(), members.begin() + std::ptrdiff_t(i), members[i]) != members.begin() + std::ptrdiff_t(i))
      fail<510>("rank ", members[i], " is a member twice");
    if (members[i] == rank) place = i;
  }
  if (place == members.size()) fail<510>("rank ", rank, " asks for a group that it isn't a member of");
  return place;
}

}  // namespace dsx::host
