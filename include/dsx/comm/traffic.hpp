// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a rank handed to its transports, by verb, axes and element type; bytes on the wire by the ring convention.
///
///     traffic.elements(Verb::all_gather, Axes::data)   // whole buffers, summed over calls
///     traffic.wire_bytes(Verb::all_gather)             // n (N - 1) / N of them left or reached this rank
///
/// Of an all-to-all only the elements that leave the rank are counted. Without counts each rank has its share of the rows, and all leave
/// but this rank's own.
#pragma once

#include <dsx/comm/communicator.hpp>

#include <array>

namespace dsx {

/// Bytes that the ring algorithm moves through one rank: all-reduce 2n(N-1)/N, gather, scatter and broadcast n(N-1)/N, else n.
constexpr double ring_bytes(Verb verb, double bytes, Extent ranks) {
  const double others = double(ranks - 1) / double(ranks);
  switch (verb) {
    case Verb::all_reduce: return 2 * bytes * others;
    case Verb::reduce_scatter: case Verb::all_gather: case Verb::broadcast: return bytes * others;
    case Verb::all_to_all: case Verb::send: return bytes;
    case Verb::receive: case Verb::barrier: return 0;  // counted by the sender
  }
  return 0;
}

class Traffic {
 public:
  struct Row {
    Verb verb{};
    Axes axes{};
    Element element{};
    Extent ranks = 1, calls = 0, elements = 0;
    double wire_bytes() const { return ring_bytes(verb, double(elements) * double(bytes_of(element)), ranks); }
  };

  void count(const Call& call, Rank rank, Extent ranks) {
    Row& row = find(call, ranks);
    ++row.calls;
    if (call.verb != Verb::all_to_all) row.elements += call.whole().size();
    else for (Rank r = 0; r < ranks; ++r) row.elements += r == rank ? 0 : call.rows_to(r, ranks) * call.in.shape.columns;
  }
  void clear() { used_ = 0; }
  std::span<const Row> rows() const { return {rows_.data(), used_}; }

  /// Elements of whole buffers that passed, of an all-to-all those that left; Axes::none counts every axis.
  Extent elements(Verb verb, Axes axes = Axes::none) const { return sum<Extent>(verb, axes, [](const Row& r) { return r.elements; }); }
  Extent calls(Verb verb, Axes axes = Axes::none) const { return sum<Extent>(verb, axes, [](const Row& r) { return r.calls; }); }
  double wire_bytes(Verb verb, Axes axes = Axes::none) const { return sum<double>(verb, axes, [](const Row& r) { return r.wire_bytes(); }); }
  double wire_bytes() const {
    double total = 0;
    for (const Row& r : rows()) total += r.wire_bytes();
    return total;
  }

 private:
  template <class T>
  T sum(Verb verb, Axes axes, auto of) const {
    T total = 0;
    for (const Row& r : rows())
      if (r.verb == verb && (axes == Axes::none || r.axes == axes)) total += of(r);
    return total;
  }
  Row& find(const Call& call, Extent ranks) {
    const Element element = call.whole().element;
    for (Extent i = 0; i < used_; ++i)
      if (Row& r = rows_[i]; r.verb == call.verb && r.axes == call.axes && r.element == element && r.ranks == ranks) return r;
    if (used_ == rows_.size()) fail<505>("a rank's traffic has more than ", rows_.size(), " kinds of call");
    return rows_[used_++] = {call.verb, call.axes, element, ranks, 0, 0};
  }
  std::array<Row, 128> rows_{};  // fixed: counting allocates nothing
  Extent used_ = 0;
};

}  // namespace dsx
