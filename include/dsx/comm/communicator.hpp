// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Communicator: asynchronous collectives over the ranks of some mesh axes. It is a handle over a Transport: one rank
/// alone, threads, MPI, or none (dry); decorators check or record what passes through.
///
///     Lease sum = mesh.along(Axes::data).all_reduce(gradients);   // the buffer is lent until the lease ends
///     ...
///     sum.wait();
///
/// Parts: where a collective cuts a buffer, rank r of n takes the rows share({0, rows}, n, r), so rows needn't divide.
#pragma once

#include <dsx/core/axes.hpp>
#include <dsx/tensor/view.hpp>

#include <memory>
#include <source_location>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace dsx {

enum class Combine : std::uint8_t { sum, max };
enum class Verb : std::uint8_t { all_reduce, reduce_scatter, all_gather, all_to_all, broadcast, send, receive, barrier };
constexpr std::string_view name_of(Verb v) {
  constexpr std::string_view names[] = {"all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "send", "receive", "barrier"};
  return names[std::size_t(v)];
}

using Site = std::source_location;

/// What one rank asks of its transport.
struct Call {
  Verb verb{};
  View in{}, out{};                // the same buffer where a verb works in place
  Combine combine = Combine::sum;
  Rank peer = 0;                   // root, receiver or sender
  Axes axes = Axes::none;          // for reports
  Site site{};
  const Call* stands_for = nullptr;  // for reports: the call that one of a decorator's own serves
  std::span<const Extent> sent{}, received{};  // an all-to-all's rows by rank, lent like the buffers; empty: shares of the buffers

  /// The rows of `in` that an all-to-all takes to a rank, and those of `out` that it brings from one.
  Extent rows_to(Rank r, Extent ranks) const { return sent.empty() ? share({0, in.shape.rows}, ranks, r).size() : sent[r]; }
  Extent rows_from(Rank r, Extent ranks) const { return received.empty() ? share({0, out.shape.rows}, ranks, r).size() : received[r]; }

  /// The buffer that all ranks share out: its element count is the call's size, but for an all-to-all, which has none in common.
  const View& whole() const { return verb == Verb::all_gather || verb == Verb::receive ? out : in; }
};

/// Ranks that can talk. One object a rank and group of ranks; used by that rank's thread alone.
class Transport {
 public:
  using Ticket = std::uint64_t;

  virtual ~Transport() = default;
  virtual Rank rank() const = 0;
  virtual Extent size() const = 0;
  /// Whether sums follow rank order, so that equal inputs give equal bits.
  virtual bool ordered() const = 0;
  /// Whether there are no peers: calls are counted, nothing moves.
  virtual bool dry() const { return false; }
  /// Whether it compares all ranks' calls by itself, so that checked() has nothing to add.
  virtual bool compares() const { return false; }

  /// Posts a call and returns at once. All ranks post the same collectives in the same order; the buffers stay lent
  /// until finish() or withdraw().
  virtual Ticket post(const Call&) = 0;
  /// Waits until the call is done and its buffers are free. Throws dsx-E501 to E504, E515 or E516, on every rank.
  virtual void finish(Ticket) = 0;
  /// Moves this rank's calls on without waiting; whether finish() of this one would return at once, or throw.
  virtual bool ready(Ticket) { return true; }
  /// Gives up a posted call while an exception unwinds: takes it back, or where peers already count on it, serves it.
  virtual void withdraw(Ticket) noexcept = 0;

  /// A transport among some ranks of this one, in the order given, which holds this rank. Called by all of them.
  virtual std::shared_ptr<Transport> among(const std::vector<Rank>& members) = 0;
  /// Frees every rank that waits in this world; they throw dsx-E501 with the reason.
  virtual void abort(const std::string& why) noexcept = 0;
};

/// A buffer lent to other ranks or another stream: its owner waits before touching it again.
class [[nodiscard]] Lease {
 public:
  Lease() = default;
  Lease(Transport& transport, Transport::Ticket ticket) : transport_{&transport}, ticket_{ticket} {}
  Lease(Lease&& other) noexcept : transport_{std::exchange(other.transport_, nullptr)}, ticket_{other.ticket_} {}
  Lease& operator=(Lease&& other) noexcept {
    if (this != &other) {
      end();
      transport_ = std::exchange(other.transport_, nullptr), ticket_ = other.ticket_;
    }
    return *this;
  }
  ~Lease() { end(); }

  void wait() {
    if (Transport* t = std::exchange(transport_, nullptr)) t->finish(ticket_);
  }
  bool pending() const { return transport_ != nullptr; }

 private:
  void end() noexcept {
    if (Transport* t = std::exchange(transport_, nullptr)) t->withdraw(ticket_);
  }
  Transport* transport_ = nullptr;
  Transport::Ticket ticket_ = 0;
};

class Communicator {
 public:
  Communicator() = default;
  Communicator(std::shared_ptr<Transport> transport, Axes axes) : transport_{std::move(transport)}, axes_{axes} {}

  Rank rank() const { return transport_ ? transport_->rank() : 0; }
  Extent size() const { return transport_ ? transport_->size() : 1; }
  Axes axes() const { return axes_; }
  bool ordered() const { return !transport_ || transport_->ordered(); }
  /// This rank's part of something that the ranks share out.
  Range part(Extent whole) const { return share({0, whole}, size(), rank()); }

  Lease all_reduce(View x, Combine combine = Combine::sum, Site site = Site::current()) const {
    return post({Verb::all_reduce, x, x, combine, 0, axes_, site});
  }
  /// out = this rank's part of the sum of everyone's `in`; out may be that part of `in`.
  Lease reduce_scatter(View in, View out, Site site = Site::current()) const {
    return post({Verb::reduce_scatter, in, out, Combine::sum, 0, axes_, site});
  }
  /// out = everyone's `in` in rank order; in may be this rank's part of `out`.
  Lease all_gather(View in, View out, Site site = Site::current()) const {
    return post({Verb::all_gather, in, out, Combine::sum, 0, axes_, site});
  }
  /// `in` holds rows for rank 0, then for rank 1, ...: sent[r] of them go to rank r; out = received[r] rows from each rank r, in rank order.
  /// The buffers may hold more rows than the counts say, not overlap. The counts stay lent as the buffers do. Where both are empty,
  /// each buffer's rows are shared out among the ranks: so a dry run, which knows no routes, takes the bound.
  Lease all_to_all(View in, std::span<const Extent> sent, View out, std::span<const Extent> received, Site site = Site::current()) const {
    return post({Verb::all_to_all, in, out, Combine::sum, 0, axes_, site, nullptr, sent, received});
  }
  /// Rank r gets its part of everyone's `in`, whose rows are as many on each rank; out has part(rows).size() rows from each.
  Lease all_to_all(View in, View out, Site site = Site::current()) const { return all_to_all(in, {}, out, {}, site); }
  Lease broadcast(View x, Rank root, Site site = Site::current()) const {
    return post({Verb::broadcast, x, x, Combine::sum, root, axes_, site});
  }
  Lease send(View x, Rank to, Site site = Site::current()) const { return post({Verb::send, x, x, Combine::sum, to, axes_, site}); }
  Lease receive(View x, Rank from, Site site = Site::current()) const {
    return post({Verb::receive, x, x, Combine::sum, from, axes_, site});
  }
  void barrier(Site site = Site::current()) const { post({Verb::barrier, {}, {}, Combine::sum, 0, axes_, site}).wait(); }

  Transport* transport() const { return transport_.get(); }

 private:
  /// A group of one has nobody to talk to: sums and gathers are copies, made by the self transport.
  Lease post(const Call& call) const {
    if (!transport_) return {};
    return {*transport_, transport_->post(call)};
  }
  std::shared_ptr<Transport> transport_{};
  Axes axes_ = Axes::none;
};

}  // namespace dsx
