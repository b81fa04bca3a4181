// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What all transports share: the checks of one call, its text in messages, and the comparison of all ranks' calls.
///
///     check(call, rank, size);                                   // throws where this rank's buffers don't fit the verb
///     if (auto text = difference(first, second)) fail<502>(*text);
#pragma once

#include <dsx/comm/communicator.hpp>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>

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
  if (c.verb == Verb::all_to_all) {  // how many rows, each rank decides
    text += concat(" of rows of ", c.whole.columns, " ", name_of(c.element));
  } else if (c.verb != Verb::barrier) {
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
  const bool moves = a.verb != Verb::barrier, uneven = a.verb == Verb::all_to_all;
  const bool same = a.verb == b.verb && (!moves || a.element == b.element) && (uneven || a.whole.size() == b.whole.size()) &&
                    (!uneven || a.whole.columns == b.whole.columns) && (!cuts_rows(a.verb) || a.whole.rows == b.whole.rows) &&
                    (!combines(a.verb) || a.combine == b.combine) && (a.verb != Verb::broadcast || a.peer == b.peer);
  if (same) return std::nullopt;
  return concat("rank ", a.rank, " calls ", to_text(a), "; rank ", b.rank, " calls ", to_text(b));
}

/// Why a message doesn't fit its receiver; the text of dsx-E503.
inline std::optional<std::string> misfit(const CallSummary& sent, const CallSummary& received) {
  if (sent.whole.size() == received.whole.size() && sent.element == received.element) return std::nullopt;
  return concat("rank ", sent.rank, " calls ", to_text(sent), "; rank ", received.rank, " calls ", to_text(received));
}

/// Why the rows of an all-to-all that one rank sends aren't those that the other expects; the text of dsx-E516.
inline std::optional<std::string> misfit(const CallSummary& from, Extent sent, const CallSummary& to, Extent expected) {
  if (sent == expected) return std::nullopt;
  return concat("rank ", from.rank, " sends rank ", to.rank, " ", sent, " rows in ", to_text(from), "; rank ", to.rank, " expects ", expected, " in ",
                to_text(to));
}

inline void copy(const View& from, const View& to) {
  if (from.data != to.data && from.size() > 0) std::memcpy(to.data, from.data, from.bytes());
}
/// What a call does that has one rank.
inline void serve_alone(const Call& call) {
  if (call.verb == Verb::all_to_all) copy(call.in.rows({0, call.rows_to(0, 1)}), call.out);
  else copy(call.in, call.out);
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

/// Whether two buffers share memory.
inline bool share_memory(const View& a, const View& b) {
  const auto *p = a.pointer<std::byte>(), *q = b.pointer<std::byte>();
  return p && q && a.size() > 0 && b.size() > 0 && p < q + b.bytes() && q < p + a.bytes();
}

/// The part of check() that is an all-to-all's own.
inline void check_rows(const Call& call, Rank rank, Extent ranks, bool dry, const auto& refuse) {
  const bool counted = !call.sent.empty();
  if (counted == call.received.empty()) refuse("it has counts for one of its buffers only");
  if (call.in.shape.columns != call.out.shape.columns)
    refuse("it reads rows of ", call.in.shape.columns, " elements and writes rows of ", call.out.shape.columns);
  for (const auto& [buffer, counts, verb] : {std::tuple{call.in, call.sent, "sends"}, std::tuple{call.out, call.received, "receives"}}) {
    if (counted && counts.size() != ranks) refuse("it has ", counts.size(), " counts of what it ", verb);
    Extent rest = buffer.shape.rows;
    for (const Extent n : counts)
      if (n > rest) refuse("it ", verb, " more rows than the ", buffer.shape.rows, " that its buffer has");
      else rest -= n;
    const Extent live = counted ? buffer.shape.rows - rest : buffer.shape.rows;
    if (!dry && !buffer.data && live * buffer.shape.columns > 0) refuse("a buffer of ", live, " rows has no memory");
  }
  const Extent sent = call.rows_to(rank, ranks), received = call.rows_from(rank, ranks);
  if (sent != received && (counted || !dry)) refuse("it sends itself ", sent, " rows and expects ", received);
  if (!dry && share_memory(call.in, call.out)) refuse("its buffers overlap");
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
    if (!dry && !v.data && v.size() > 0 && call.verb != Verb::all_to_all) refuse("a buffer of ", v.size(), " elements has no memory");
    if (!dry && v.place != Place::cpu) refuse("its buffer isn't in the host's memory");
  }
  if (call.in.element != call.out.element) refuse("it reads ", name_of(call.in.element), " and writes ", name_of(call.out.element));
  if (call.verb == Verb::all_to_all) return check_rows(call, rank, ranks, dry, refuse);
  if (!cuts_rows(call.verb)) {
    if (call.in.size() != call.out.size()) refuse("it reads ", call.in.size(), " elements and writes ", call.out.size());
    return;
  }
  const View& whole = call.whole();
  const View& part = call.verb == Verb::all_gather ? call.in : call.out;
  const Range mine = part_of(whole, ranks, rank);
  if (part.size() != mine.size()) refuse("this rank's part has ", mine.size(), " elements, its buffer ", part.size());
  const bool own = part.data == whole.part(mine).data;
  if (!dry && !own && share_memory(part, whole)) refuse("its buffers overlap otherwise than as whole and own part");
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
