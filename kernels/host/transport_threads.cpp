// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Ranks that are threads: collectives without helper threads, which each rank's own waiting moves on.
///
///     ThreadWorld world{2};
///     Lease sum = Communicator{world.transport(rank), Axes::data}.all_reduce(x);   // posted: nothing has moved yet
///     sum.wait();                                                                  // this rank's share is computed here
///
/// One mutex guards who has posted what; it is never held while elements move. A rank touches its peers' buffers only while it is
/// counted in `at_work`, and a failure keeps everybody from beginning: so a buffer may die as soon as nobody is at work.
#include "calls.hpp"

#include <dsx/comm/transports.hpp>

#include <array>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

namespace dsx {
namespace {

using Clock = std::chrono::steady_clock;
using Failure = Error;

constexpr Extent ring_size = 64;
constexpr Extent block = 1'024;  // elements that a sum is taken over at a time: they stay in the first cache

// ---- what moves

template <class T>
using Sum = std::conditional_t<std::is_same_v<T, bf16>, float, T>;  // bf16 is summed in float and rounded once

template <class T>
void combine_into(Sum<T>* __restrict sum, const T* __restrict x, Extent n, Combine combine) {
  if (combine == Combine::sum)
    for (Extent i = 0; i < n; ++i) sum[i] += Sum<T>(x[i]);
  else
    for (Extent i = 0; i < n; ++i) {
      const Sum<T> y = Sum<T>(x[i]);
      sum[i] = y > sum[i] || y != y ? y : sum[i];  // a NaN wins
    }
}

/// Combines everyone's elements in rank order and hands each block to store(first element, count, sums). Outputs may be
/// inputs: a block is read before it is written.
template <class T, class Store>
void combine_all(std::span<const Call> calls, Range elements, Combine combine, Store store) {
  std::array<Sum<T>, block> sum;
  for (Extent begin = elements.begin; begin < elements.end; begin += block) {
    const Extent n = std::min(block, elements.end - begin);
    const T* first = calls[0].in.pointer<const T>() + begin;
    for (Extent i = 0; i < n; ++i) sum[i] = Sum<T>(first[i]);
    for (Rank r = 1; r < calls.size(); ++r) combine_into<T>(sum.data(), calls[r].in.pointer<const T>() + begin, n, combine);
    store(begin, n, sum.data());
  }
}
template <class T>
void copy_sums(const Sum<T>* __restrict sum, T* __restrict to, Extent n) {
  for (Extent i = 0; i < n; ++i) to[i] = T(sum[i]);
}

/// This rank's work in an open collective. An all-reduce is summed part by part, and each part written to all ranks.
void work(std::span<const Call> calls, Rank me) {
  const Call& mine = calls[me];
  const Extent ranks = calls.size();
  if (ranks == 1) return host::serve_alone(mine);
  switch (mine.verb) {
    case Verb::all_reduce:
      return host::dispatch_combinable(mine.in.element, mine.verb, [&](auto zero) {
        using T = decltype(zero);
        combine_all<T>(calls, share({0, mine.in.size()}, ranks, me), mine.combine, [&](Extent begin, Extent n, const Sum<T>* sum) {
          for (const Call& call : calls) copy_sums(sum, call.out.pointer<T>() + begin, n);
        });
      });
    case Verb::reduce_scatter:
      return host::dispatch_combinable(mine.in.element, mine.verb, [&](auto zero) {
        using T = decltype(zero);
        const Range part = host::part_of(mine.in, ranks, me);
        combine_all<T>(calls, part, mine.combine, [&](Extent begin, Extent n, const Sum<T>* sum) {
          copy_sums(sum, mine.out.pointer<T>() + (begin - part.begin), n);
        });
      });
    case Verb::all_gather:
      for (Rank r = 0; r < ranks; ++r) host::copy(calls[r].in, mine.out.part(host::part_of(mine.out, ranks, r)));
      return;
    case Verb::all_to_all: {
      Extent done = 0;
      for (const Call& theirs : calls) {
        Extent begin = 0;
        for (Rank r = 0; r < me; ++r) begin += theirs.rows_to(r, ranks);
        const Extent rows = theirs.rows_to(me, ranks);
        host::copy(theirs.in.rows({begin, begin + rows}), mine.out.rows({done, done + rows}));
        done += rows;
      }
      return;
    }
    case Verb::broadcast: return host::copy(calls[mine.peer].in, mine.out);
    case Verb::send: case Verb::receive: case Verb::barrier: return;
  }
}

// ---- who has posted what

/// One collective of a group, from the first posting until the last rank has left it.
struct Slot {
  enum class Share : std::uint8_t { absent, posted, worked };
  std::uint64_t number = 0;   // of the collective among the group's
  std::vector<Call> calls;    // by rank of the group
  std::vector<Share> shares;  // by rank of the group
  Extent posted = 0, worked = 0, at_work = 0, left = 0;
  bool open = false;          // all have posted
  std::shared_ptr<Failure> refusal;
};

/// A buffer on its way from one rank to another. The receiver copies out of the sender's memory.
struct Parcel {
  enum class State { none, offered, moving, taken, refused } state = State::none;
  std::uint64_t number = 0;  // among those of its channel
  Call call{};
  std::shared_ptr<Failure> refusal;
};
struct Channel {
  std::uint64_t sent = 0, received = 0;
  std::array<Parcel, ring_size> ring{};
  Parcel& at(std::uint64_t number) { return ring[number % ring_size]; }
};

struct Group {
  explicit Group(std::vector<Rank> world_ranks)
      : members{std::move(world_ranks)}, posted(members.size(), 0), channels(members.size() * members.size()) {
    for (Extent i = 0; i < ring_size; ++i) {
      slots[i].number = i;
      slots[i].calls.resize(members.size());
      slots[i].shares.resize(members.size());
    }
  }
  Extent size() const { return members.size(); }
  Slot& slot(std::uint64_t number) { return slots[number % ring_size]; }
  Channel& channel(Rank from, Rank to) {
    auto& channel = channels[from * size() + to];
    if (!channel) channel = std::make_unique<Channel>();
    return *channel;
  }
  std::vector<Rank> members;          // as ranks of the world
  std::vector<std::uint64_t> posted;  // collectives, by rank
  std::array<Slot, ring_size> slots;
  std::vector<std::unique_ptr<Channel>> channels;
};

/// One rank's call under way.
struct Pending {
  Transport::Ticket ticket = 0;
  Group* group = nullptr;
  Rank me = 0;               // in the group
  std::uint64_t number = 0;  // of the collective, or of the parcel in its channel
  Call call{};
  enum class State { waiting, done, failed } state = State::waiting;
  std::shared_ptr<Failure> failure{};
};

/// A rank of the world.
struct alignas(64) Seat {
  std::atomic<std::uint64_t> bell{0};  // counts what may let this rank go on
  std::condition_variable rung;
  bool asleep = false, gone = false;
  const Call* waits_in = nullptr;      // while asleep
  Call last{};
  bool has_called = false;
  // Of the rank's own thread:
  std::vector<Pending> pending;
  Transport::Ticket tickets = 0;
};

}  // namespace

struct ThreadWorld::State {
  using Lock = std::unique_lock<std::mutex>;
  using Ticket = Transport::Ticket;

  State(Extent ranks, ThreadOptions chosen) : options{chosen}, seats(ranks) {
    if (ranks > std::thread::hardware_concurrency()) pauses = 0;  // the rank that is waited for needs this core
    std::vector<Rank> all(ranks);
    for (Rank r = 0; r < ranks; ++r) all[r] = r, seats[r].pending.reserve(ring_size);
    world = std::make_shared<Group>(std::move(all));
  }

  // Everything below runs under the lock, unless it says otherwise.

  void ring(Rank rank) {
    Seat& seat = seats[rank];
    seat.bell.store(seat.bell.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    if (!std::exchange(seat.asleep, false)) return;
    --sleepers;
    seat.rung.notify_one();
  }
  void ring(const Group& group, Rank except) {
    for (Rank r = 0; r < group.size(); ++r)
      if (r != except) ring(group.members[r]);
  }
  void fail_all(int number, const std::string& why) {
    if (failure) return;
    failure = std::make_shared<Failure>(number, why);
    for (Rank r = 0; r < seats.size(); ++r) ring(r);
  }
  void throw_if_failed() const {
    if (failure) throw Error{*failure};
  }

  // -- collectives

  void open_if_all_posted(Group& group, Slot& slot, Rank me) {
    if (slot.posted < group.size()) return;
    const auto seen = [&](Rank r) { return host::summary(slot.calls[r], group.members[r]); };
    for (Rank r = 1; r < group.size() && !slot.refusal; ++r)
      if (const auto why = host::difference(seen(0), seen(r))) slot.refusal = std::make_shared<Failure>(502, *why);
    if (slot.calls[0].verb == Verb::all_to_all)
      for (Rank from = 0; from < group.size(); ++from)
        for (Rank to = 0; to < group.size() && !slot.refusal; ++to) {
          const Extent sent = slot.calls[from].rows_to(to, group.size()), expected = slot.calls[to].rows_from(from, group.size());
          if (const auto why = host::misfit(seen(from), sent, seen(to), expected)) slot.refusal = std::make_shared<Failure>(516, *why);
        }
    slot.open = true;
    ring(group, me);
  }
  void leave(Group& group, Slot& slot, Rank me) {
    if (++slot.left < group.size()) return;
    slot.number += ring_size;
    slot.posted = slot.worked = slot.left = 0, slot.open = false;
    slot.refusal.reset();
    std::fill(slot.shares.begin(), slot.shares.end(), Slot::Share::absent);
    ring(group, me);  // those that wait for a free slot
  }
  /// Whether no peer will touch this rank's buffers any more.
  static bool is_over(const Slot& slot, const Pending& p) {
    if (p.call.verb == Verb::barrier) return true;
    if (slot.shares[p.me] != Slot::Share::worked) return false;
    return slot.worked == slot.calls.size() || (p.call.verb == Verb::broadcast && p.call.peer != p.me);
  }
  /// Moves a collective on as far as its peers allow. Gives up the lock while elements move.
  void advance_collective(Lock& lock, Pending& p) {
    Group& group = *p.group;
    Slot& slot = group.slot(p.number);
    while (slot.open && p.state == Pending::State::waiting) {
      if (slot.refusal) {
        p.state = Pending::State::failed, p.failure = slot.refusal;
        leave(group, slot, p.me);
      } else if (is_over(slot, p)) {
        p.state = Pending::State::done;
        leave(group, slot, p.me);
      } else if (slot.shares[p.me] == Slot::Share::worked || failure) {
        return;
      } else {
        ++slot.at_work;
        lock.unlock();
        work(slot.calls, p.me);
        lock.lock();
        --slot.at_work, ++slot.worked, slot.shares[p.me] = Slot::Share::worked;
        if (slot.worked == group.size() || failure) ring(group, p.me);
      }
    }
  }

  // -- messages

  Channel& channel_of(const Pending& p) {
    return p.call.verb == Verb::send ? p.group->channel(p.me, p.call.peer) : p.group->channel(p.call.peer, p.me);
  }
  void advance_send(Pending& p) {
    Parcel& parcel = channel_of(p).at(p.number);
    if (parcel.state == Parcel::State::taken) p.state = Pending::State::done;
    else if (parcel.state == Parcel::State::refused) p.state = Pending::State::failed, p.failure = std::move(parcel.refusal);
    else return;
    parcel.state = Parcel::State::none;
  }
  void advance_receive(Lock& lock, Pending& p) {
    Parcel& parcel = channel_of(p).at(p.number);
    if (parcel.state != Parcel::State::offered || parcel.number != p.number || failure) return;
    const Rank sender = p.group->members[p.call.peer];
    const auto why = host::misfit(host::summary(parcel.call, sender), host::summary(p.call, p.group->members[p.me]));
    if (why) {
      parcel.refusal = p.failure = std::make_shared<Failure>(503, *why);
      parcel.state = Parcel::State::refused, p.state = Pending::State::failed;
    } else {
      parcel.state = Parcel::State::moving;
      lock.unlock();
      host::copy(parcel.call.in, p.call.out);
      lock.lock();
      parcel.state = Parcel::State::taken, p.state = Pending::State::done;
    }
    ring(sender);
  }

  // -- one rank's waiting

  void advance_all(Lock& lock, Seat& seat) {
    for (Pending& p : seat.pending) {
      if (p.state != Pending::State::waiting) continue;
      if (host::is_collective(p.call.verb)) advance_collective(lock, p);
      else if (p.call.verb == Verb::send) advance_send(p);
      else advance_receive(lock, p);
    }
  }
  static Pending& find(Seat& seat, Ticket ticket) {
    return *std::find_if(seat.pending.begin(), seat.pending.end(), [&](const Pending& p) { return p.ticket == ticket; });
  }
  static void remove(Seat& seat, Ticket ticket) { seat.pending.erase(seat.pending.begin() + (&find(seat, ticket) - seat.pending.data())); }

  /// Gives up a call that isn't done; false where peers read its buffers, or count on it.
  bool take_back(Pending& p) {
    if (p.call.verb == Verb::receive) return true;
    if (p.call.verb == Verb::send) {
      Parcel& parcel = channel_of(p).at(p.number);
      if (parcel.state == Parcel::State::moving) return false;
      parcel.state = Parcel::State::none;
      return true;
    }
    Slot& slot = p.group->slot(p.number);
    if (slot.open) return failure && slot.at_work == 0;
    slot.shares[p.me] = Slot::Share::absent, --slot.posted;
    return true;
  }
  bool aborted(Pending& p) { return failure && p.state == Pending::State::waiting && take_back(p); }

  /// Waits until `done()`, which is asked under the lock, and moves all of this rank's calls on meanwhile.
  template <class Done>
  void wait(Lock& lock, Rank rank, const Call& call, Done done) {
    Seat& seat = seats[rank];
    const auto since = Clock::now();
    for (;;) {
      const std::uint64_t heard = seat.bell.load(std::memory_order_relaxed);
      advance_all(lock, seat);
      if (done()) return;
      if (seat.bell.load(std::memory_order_relaxed) != heard) continue;
      lock.unlock();
      const auto silent = [&] { return seat.bell.load(std::memory_order_acquire) == heard; };
      for (int i = 0; i < pauses && silent(); ++i) pause();
      for (int i = 0; i < yields && silent(); ++i) std::this_thread::yield();
      lock.lock();
      if (seat.bell.load(std::memory_order_relaxed) == heard) sleep(lock, rank, call, since);
    }
  }
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  void sleep(Lock& lock, Rank rank, const Call& call, Clock::time_point since) {
    Seat& seat = seats[rank];
    seat.asleep = true, seat.waits_in = &call;
    ++sleepers;
    fail_if_stuck();
    const auto rung = [&] { return !seat.asleep; };
    if (options.time_limit.count() == 0 || failure) {
      seat.rung.wait(lock, rung);
    } else if (!seat.rung.wait_until(lock, since + options.time_limit, rung)) {
      fail_all(504, concat("rank ", rank, " waited ", options.time_limit.count(), " ms in ", to_text(seen(call)), absentees(rank, call)));
    }
    seat.waits_in = nullptr;
  }
  /// Every rank sleeps or is gone: nobody will ever ring.
  void fail_if_stuck() {
    if (sleepers + goners < seats.size() || sleepers == 0 || failure) return;
    std::string why = "no rank can go on";
    for (Rank r = 0; r < seats.size(); ++r)
      why += concat(r == 0 ? ": " : "; ", "rank ", r, seats[r].gone ? " has ended" : " waits in " + to_text(seen(*seats[r].waits_in)));
    fail_all(506, why);
  }
  static host::CallSummary seen(const Call& call) { return host::summary(call, 0); }

  /// "; rank 2 hasn't arrived: its last call was ...". The call is the one that `rank` waits in.
  std::string absentees(Rank rank, const Call& call) {
    std::string text;
    const auto name = [&](Rank r) {
      const Seat& seat = seats[r];
      text += concat("; rank ", r, " hasn't arrived: ", seat.has_called ? "its last call was " + to_text(seen(seat.last)) : "it has called nothing");
    };
    for (Pending& p : seats[rank].pending) {
      if (&p.call != &call) continue;
      if (!host::is_collective(call.verb)) {
        name(p.group->members[call.peer]);
        continue;
      }
      const Slot& slot = p.group->slot(p.number);
      const auto due = slot.open ? Slot::Share::worked : Slot::Share::posted;
      for (Rank r = 0; r < p.group->size(); ++r)
        if (r != p.me && slot.shares[r] < due) name(p.group->members[r]);
    }
    if (text.empty()) text = concat("; ", ring_size, " earlier calls aren't done");
    return text;
  }

  const ThreadOptions options;
  // A waiting rank looks again this often before it sleeps; two ranks that share a core get on by yielding.
  int pauses = 20;
  static constexpr int yields = 100;
  std::mutex mutex{};
  std::vector<Seat> seats;
  Extent sleepers = 0, goners = 0;
  std::shared_ptr<Failure> failure{};
  std::shared_ptr<Group> world{};
  /// Groups that not all members have asked for yet; the n-th that a rank asks for is the n-th of its peers.
  struct Founding {
    std::shared_ptr<Group> group;
    Extent claimed = 0;
  };
  std::map<std::pair<std::vector<Rank>, Extent>, Founding> foundings{};
  std::map<std::pair<std::vector<Rank>, Rank>, Extent> asked{};
};

namespace {

class ThreadTransport final : public Transport {
 public:
  using State = ThreadWorld::State;
  ThreadTransport(std::shared_ptr<State> world, std::shared_ptr<Group> group, Rank me)
      : world_{std::move(world)}, group_{std::move(group)}, me_{me}, seat_{group_->members[me]} {}

  Rank rank() const override { return me_; }
  Extent size() const override { return group_->size(); }
  bool ordered() const override { return true; }
  bool compares() const override { return true; }

  Ticket post(const Call& call) override {
    host::check(call, me_, size());
    State& w = *world_;
    Seat& seat = w.seats[seat_];
    State::Lock lock{w.mutex};
    w.throw_if_failed();
    seat.last = call, seat.has_called = true;
    Pending p{++seat.tickets, group_.get(), me_, 0, call};
    if (host::is_collective(call.verb)) {
      p.number = group_->posted[me_]++;
      Slot& slot = group_->slot(p.number);
      const auto free = [&] { return w.failure || slot.number == p.number; };
      if (!free()) w.wait(lock, seat_, call, free);
      w.throw_if_failed();
      slot.calls[me_] = call, slot.shares[me_] = Slot::Share::posted, ++slot.posted;
      w.open_if_all_posted(*group_, slot, me_);
    } else if (call.verb == Verb::send) {
      Channel& channel = group_->channel(me_, call.peer);
      p.number = channel.sent++;
      Parcel& parcel = channel.at(p.number);
      const auto free = [&] { return w.failure || parcel.state == Parcel::State::none; };
      if (!free()) w.wait(lock, seat_, call, free);
      w.throw_if_failed();
      parcel = {Parcel::State::offered, p.number, call, {}};
      w.ring(group_->members[call.peer]);
    } else {
      p.number = group_->channel(call.peer, me_).received++;
    }
    seat.pending.push_back(std::move(p));
    return seat.tickets;
  }
  void finish(Ticket ticket) override {
    State& w = *world_;
    Seat& seat = w.seats[seat_];
    State::Lock lock{w.mutex};
    Pending& p = State::find(seat, ticket);  // stays where it is: nothing is posted while its rank waits
    bool aborted = false;
    w.wait(lock, seat_, p.call, [&] { return p.state != Pending::State::waiting || (aborted = w.aborted(p)); });
    const auto failure = aborted ? w.failure : p.failure;
    State::remove(seat, ticket);
    if (failure) throw Error{*failure};
  }
  bool ready(Ticket ticket) override {
    State& w = *world_;
    Seat& seat = w.seats[seat_];
    State::Lock lock{w.mutex};
    w.advance_all(lock, seat);
    return w.failure || State::find(seat, ticket).state != Pending::State::waiting;
  }
  void withdraw(Ticket ticket) noexcept override {
    State& w = *world_;
    Seat& seat = w.seats[seat_];
    State::Lock lock{w.mutex};
    Pending& p = State::find(seat, ticket);
    if (p.state == Pending::State::waiting && !w.take_back(p))
      w.wait(lock, seat_, p.call, [&] { return p.state != Pending::State::waiting || w.aborted(p); });
    State::remove(seat, ticket);
  }
  std::shared_ptr<Transport> among(const std::vector<Rank>& members) override {
    const Rank place = host::place_among(members, me_, size());
    std::vector<Rank> world_ranks;
    for (const Rank m : members) world_ranks.push_back(group_->members[m]);
    State& w = *world_;
    State::Lock lock{w.mutex};
    const auto key = std::pair{world_ranks, w.asked[{world_ranks, seat_}]++};
    auto& founding = w.foundings[key];
    if (!founding.group) founding.group = std::make_shared<Group>(world_ranks);
    const auto group = founding.group;
    if (++founding.claimed == members.size()) w.foundings.erase(key);
    return std::make_shared<ThreadTransport>(world_, group, place);
  }
  void abort(const std::string& why) noexcept override {
    State::Lock lock{world_->mutex};
    world_->fail_all(501, "another rank failed: " + why);
  }

 private:
  std::shared_ptr<State> world_;
  std::shared_ptr<Group> group_;
  Rank me_, seat_;
};

}  // namespace

ThreadWorld::ThreadWorld(Extent ranks, ThreadOptions options) {
  if (ranks == 0) fail<510>("a world of 0 ranks");
  state_ = std::make_shared<State>(ranks, options);
}
ThreadWorld::~ThreadWorld() = default;
Extent ThreadWorld::size() const { return state_->seats.size(); }
std::shared_ptr<Transport> ThreadWorld::transport(Rank rank) {
  if (rank >= size()) fail<510>("rank ", rank, " of ", size(), " ranks");
  return std::make_shared<ThreadTransport>(state_, state_->world, rank);
}
void ThreadWorld::abort(const std::string& why) noexcept {
  State::Lock lock{state_->mutex};
  state_->fail_all(501, "another rank failed: " + why);
}
void ThreadWorld::leave(Rank rank) noexcept {
  State::Lock lock{state_->mutex};
  if (std::exchange(state_->seats[rank].gone, true)) return;
  ++state_->goners;
  state_->fail_if_stuck();
}

}  // namespace dsx
