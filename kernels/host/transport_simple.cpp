// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Transports that talk to nobody (self, dry) and the decorators (checked, recorded).
///
///     auto world = recorded(checked(mpi_transport_world()), traffic);
#include "calls.hpp"

#include <dsx/comm/transports.hpp>

#include <cstring>
#include <list>
#include <thread>

namespace dsx {
namespace {

using host::check;
using host::CallSummary;

/// With nobody to wait for, a call is done when it is posted.
class SelfTransport final : public Transport {
 public:
  Rank rank() const override { return 0; }
  Extent size() const override { return 1; }
  bool ordered() const override { return true; }
  bool compares() const override { return true; }
  Ticket post(const Call& call) override {
    if (!why_.empty()) fail<501>("another rank failed: ", why_);
    check(call, 0, 1);
    host::serve_alone(call);
    return ++tickets_;
  }
  void finish(Ticket) override {}
  void withdraw(Ticket) noexcept override {}
  std::shared_ptr<Transport> among(const std::vector<Rank>& members) override {
    host::place_among(members, 0, 1);
    return self_transport();
  }
  void abort(const std::string& why) noexcept override { why_ = why; }

 private:
  Ticket tickets_ = 0;
  std::string why_{};
};

class DryTransport final : public Transport {
 public:
  DryTransport(Rank rank, Extent size) : rank_{rank}, size_{size} {
    if (rank >= size) fail<510>("rank ", rank, " of ", size, " ranks");
  }
  Rank rank() const override { return rank_; }
  Extent size() const override { return size_; }
  bool ordered() const override { return true; }
  bool dry() const override { return true; }
  bool compares() const override { return true; }
  Ticket post(const Call& call) override {
    check(call, rank_, size_, true);
    return ++tickets_;
  }
  void finish(Ticket) override {}
  void withdraw(Ticket) noexcept override {}
  std::shared_ptr<Transport> among(const std::vector<Rank>& members) override {
    return dry_transport(host::place_among(members, rank_, size_), members.size());
  }
  void abort(const std::string&) noexcept override {}

 private:
  Rank rank_;
  Extent size_;
  Ticket tickets_ = 0;
};

class RecordedTransport final : public Transport {
 public:
  RecordedTransport(std::shared_ptr<Transport> inner, Traffic& traffic, Journal* journal)
      : inner_{std::move(inner)}, traffic_{&traffic}, journal_{journal} {}
  Rank rank() const override { return inner_->rank(); }
  Extent size() const override { return inner_->size(); }
  bool ordered() const override { return inner_->ordered(); }
  bool dry() const override { return inner_->dry(); }
  bool compares() const override { return inner_->compares(); }
  Ticket post(const Call& call) override {
    const Ticket ticket = inner_->post(call);
    traffic_->count(call, rank(), size());
    if (journal_) journal_->events.push_back({Journal::What::post, call, size(), ticket, this});
    return ticket;
  }
  void finish(Ticket ticket) override {
    inner_->finish(ticket);
    note(Journal::What::finish, ticket);
  }
  bool ready(Ticket ticket) override { return inner_->ready(ticket); }
  void withdraw(Ticket ticket) noexcept override {
    inner_->withdraw(ticket);
    note(Journal::What::withdraw, ticket);
  }
  std::shared_ptr<Transport> among(const std::vector<Rank>& members) override { return recorded(inner_->among(members), *traffic_, journal_); }
  void abort(const std::string& why) noexcept override { inner_->abort(why); }

 private:
  void note(Journal::What what, Ticket ticket) {
    if (!journal_) return;
    auto& events = journal_->events;
    const auto posted = std::find_if(events.rbegin(), events.rend(), [&](const Journal::Event& e) {
      return e.what == Journal::What::post && e.ticket == ticket && e.group == this;
    });
    if (posted == events.rend()) return;
    Journal::Event event = *posted;
    event.what = what;
    events.push_back(event);
  }
  std::shared_ptr<Transport> inner_;
  Traffic* traffic_;
  Journal* journal_;
};

/// A CallSummary as it travels: of one size, the end of the file's path in it.
struct Letter {
  std::uint64_t rank, rows, columns, peer;
  std::uint32_t axes, line;
  std::uint8_t verb, combine, element, length;
  char file[204];
};
static_assert(sizeof(Letter) == 248);

Letter letter_of(const CallSummary& c) {
  const std::string_view file = c.file.substr(c.file.size() - std::min(c.file.size(), sizeof(Letter::file)));
  Letter letter{c.rank, c.whole.rows, c.whole.columns, c.peer, std::uint32_t(c.axes), c.line, std::uint8_t(c.verb), std::uint8_t(c.combine),
                std::uint8_t(c.element), std::uint8_t(file.size()), {}};
  std::memcpy(letter.file, file.data(), file.size());
  return letter;
}
CallSummary summary_of(const Letter& l) {
  return {l.rank, Verb(l.verb), Combine(l.combine), Element(l.element), Axes(l.axes), {l.rows, l.columns}, l.peer, {l.file, l.length}, l.line};
}
View bytes_of_letters(Letter* first, Extent count) { return {first, {count, sizeof(Letter)}, Element::u8}; }

std::string_view text_of(const Error& error) {  // without its number
  const std::string_view what = error.what();
  return what.substr(what.find(": ") + 2);
}

/// What the groups of one rank share: every call whose letters are under way, in the order of posting.
class Desk;

/// Letters go ahead of each call on a group of their own, and then an all-to-all's counts on the call's. A call is handed on when all
/// letters have come and agree, so nothing moves of a call that is refused, and a call that is withdrawn before that was never begun.
class CheckedTransport final : public Transport {
 public:
  CheckedTransport(std::shared_ptr<Transport> inner, std::shared_ptr<Desk> desk, std::vector<Rank> world_ranks)
      : inner_{std::move(inner)}, desk_{std::move(desk)}, world_ranks_{std::move(world_ranks)} {
    std::vector<Rank> all(size());
    for (Rank r = 0; r < size(); ++r) all[r] = r;
    letters_ = inner_->among(all);
  }
  Rank rank() const override { return inner_->rank(); }
  Extent size() const override { return inner_->size(); }
  bool ordered() const override { return inner_->ordered(); }
  bool dry() const override { return inner_->dry(); }
  bool compares() const override { return true; }
  Ticket post(const Call& call) override;
  void finish(Ticket ticket) override;
  bool ready(Ticket ticket) override;
  void withdraw(Ticket ticket) noexcept override;
  std::shared_ptr<Transport> among(const std::vector<Rank>& members) override {
    std::vector<Rank> world_ranks;
    for (const Rank m : members) world_ranks.push_back(m < size() ? world_ranks_[m] : m);
    return std::make_shared<CheckedTransport>(inner_->among(members), desk_, world_ranks);
  }
  void abort(const std::string& why) noexcept override { inner_->abort(why); }

 private:
  friend class Desk;
  std::shared_ptr<Transport> inner_, letters_{};
  std::shared_ptr<Desk> desk_;
  std::vector<Rank> world_ranks_;
};

class Desk {
 public:
  using Ticket = Transport::Ticket;
  struct Errand {
    enum class State { letters, counts, handed_on, refused } state = State::letters;
    Ticket ticket = 0;
    CheckedTransport* group = nullptr;
    Call call{};
    Letter own{};
    std::vector<Letter> received{};
    std::vector<Extent> counts{};    // of an all-to-all, by rank: what it sends to each, and what it expects from each
    Transport* carrier = nullptr;    // of the letter
    Ticket letter = 0, inner = 0;    // 0: not, or no longer, under way
    int refusal = 0;
    std::string why{};
  };

  Ticket open(CheckedTransport& group, const Call& call) {
    Errand& e = errands_.emplace_back();
    e.ticket = ++tickets_, e.group = &group, e.call = call;
    e.own = letter_of(host::summary(call, group.world_ranks_[group.rank()]));
    e.carrier = group.letters_.get();
    View out = bytes_of_letters(&e.own, 1), in = out;
    if (call.verb == Verb::receive) in = out = received(e, 1);
    if (host::is_collective(call.verb)) out = received(e, group.size());
    const Verb verb = host::is_collective(call.verb) ? Verb::all_gather : call.verb;
    try {
      e.letter = e.carrier->post({verb, in, out, Combine::sum, call.peer, call.axes, call.site, &e.call});
    } catch (...) {
      errands_.pop_back();
      throw;
    }
    return e.ticket;
  }

  /// Hands on every call whose letters have come and agree; collectives of a group, and messages to or from one peer, in order.
  void advance() {
    behind_.clear();
    for (Errand& e : errands_) {
      if (!under_way(e)) continue;
      const Queue queue{e.group, host::is_collective(e.call.verb) ? Verb::barrier : e.call.verb, host::is_collective(e.call.verb) ? 0 : e.call.peer};
      if (std::find(behind_.begin(), behind_.end(), queue) != behind_.end() || !arrived(e)) {
        behind_.push_back(queue);
        continue;
      }
      compare(e);
      if (e.state == Errand::State::letters && e.call.verb == Verb::all_to_all) send_counts(e), behind_.push_back(queue);
      else if (under_way(e)) e.inner = e.group->inner_->post(e.call), e.state = Errand::State::handed_on;
    }
  }
  Errand& find(Ticket ticket) { return *at(ticket); }
  void close(Ticket ticket) { errands_.erase(at(ticket)); }
  /// Letters that can't be taken back keep their memory.
  void abandon(Ticket ticket) { abandoned_.splice(abandoned_.end(), errands_, at(ticket)); }

 private:
  struct Queue {
    const CheckedTransport* group;
    Verb verb;
    Rank peer;
    bool operator==(const Queue&) const = default;
  };
  std::list<Errand>::iterator at(Ticket ticket) {
    return std::find_if(errands_.begin(), errands_.end(), [&](const Errand& e) { return e.ticket == ticket; });
  }
  static View received(Errand& e, Extent count) {
    e.received.resize(count);
    return bytes_of_letters(e.received.data(), count);
  }
  static bool under_way(const Errand& e) { return e.state == Errand::State::letters || e.state == Errand::State::counts; }
  /// The ranks' calls agree: next, each tells all what it sends and expects. This goes the way of the call itself, whose turn it is.
  static void send_counts(Errand& e) {
    const Extent ranks = e.group->size(), own = e.group->rank();
    e.counts.resize(ranks * 2 * ranks);
    for (Rank r = 0; r < ranks; ++r) {
      e.counts[own * 2 * ranks + r] = e.call.rows_to(r, ranks);
      e.counts[(own * 2 + 1) * ranks + r] = e.call.rows_from(r, ranks);
    }
    const View all{e.counts.data(), {ranks, 2 * ranks * sizeof(Extent)}, Element::u8};
    e.carrier = e.group->inner_.get(), e.state = Errand::State::counts;
    e.letter = e.carrier->post({Verb::all_gather, all.rows({own, own + 1}), all, Combine::sum, 0, e.call.axes, e.call.site, &e.call});
  }
  static void refuse(Errand& e, int number, std::string why) {
    if (under_way(e)) e.state = Errand::State::refused, e.refusal = number, e.why = std::move(why);
  }
  bool arrived(Errand& e) {
    if (e.letter == 0) return true;
    if (!e.carrier->ready(e.letter)) return false;
    try {
      e.carrier->finish(std::exchange(e.letter, 0));
    } catch (const Error& error) {
      refuse(e, error.number(), std::string{text_of(error)});
    }
    return true;
  }
  static void compare(Errand& e) {
    if (e.state == Errand::State::counts) return compare_counts(e);
    if (e.state != Errand::State::letters) return;
    if (e.call.verb == Verb::receive)
      if (auto why = host::misfit(summary_of(e.received[0]), summary_of(e.own))) refuse(e, 503, std::move(*why));
    if (host::is_collective(e.call.verb))
      for (const Letter& other : e.received)
        if (auto why = host::difference(summary_of(e.received[0]), summary_of(other))) refuse(e, 502, std::move(*why));
  }
  static void compare_counts(Errand& e) {
    const Extent ranks = e.group->size();
    for (Rank from = 0; from < ranks; ++from)
      for (Rank to = 0; to < ranks; ++to) {
        const Extent sent = e.counts[from * 2 * ranks + to], expected = e.counts[(to * 2 + 1) * ranks + from];
        if (auto why = host::misfit(summary_of(e.received[from]), sent, summary_of(e.received[to]), expected)) refuse(e, 516, std::move(*why));
      }
  }
  std::list<Errand> errands_{}, abandoned_{};
  std::vector<Queue> behind_{};
  Ticket tickets_ = 0;
};

Transport::Ticket CheckedTransport::post(const Call& call) {
  check(call, rank(), size(), dry());
  return desk_->open(*this, call);
}
bool CheckedTransport::ready(Ticket ticket) {
  desk_->advance();
  const Desk::Errand& e = desk_->find(ticket);
  return e.state == Desk::Errand::State::refused || (e.state == Desk::Errand::State::handed_on && inner_->ready(e.inner));
}
void CheckedTransport::finish(Ticket ticket) {
  try {
    for (int polls = 0; !ready(ticket); ++polls) {
      if (polls < 2'000) std::this_thread::yield();
      else std::this_thread::sleep_for(std::chrono::microseconds{20});
    }
  } catch (...) {
    desk_->abandon(ticket);
    throw;
  }
  const Desk::Errand& e = desk_->find(ticket);
  if (e.state == Desk::Errand::State::refused) {
    const Error error{e.refusal, e.why};
    desk_->close(ticket);
    throw error;
  }
  const Ticket inner = e.inner;
  desk_->close(ticket);
  inner_->finish(inner);
}
void CheckedTransport::withdraw(Ticket ticket) noexcept {
  const Desk::Errand& e = desk_->find(ticket);
  if (e.state == Desk::Errand::State::handed_on) inner_->withdraw(e.inner);
  else if (e.letter != 0) e.carrier->withdraw(e.letter);
  desk_->abandon(ticket);
}

}  // namespace

std::shared_ptr<Transport> self_transport() { return std::make_shared<SelfTransport>(); }
std::shared_ptr<Transport> dry_transport(Rank rank, Extent size) { return std::make_shared<DryTransport>(rank, size); }
std::shared_ptr<Transport> recorded(std::shared_ptr<Transport> transport, Traffic& traffic, Journal* journal) {
  return std::make_shared<RecordedTransport>(std::move(transport), traffic, journal);
}
std::shared_ptr<Transport> checked(std::shared_ptr<Transport> transport) {
  if (transport->compares()) return transport;
  std::vector<Rank> world_ranks(transport->size());
  for (Rank r = 0; r < world_ranks.size(); ++r) world_ranks[r] = r;
  return std::make_shared<CheckedTransport>(std::move(transport), std::make_shared<Desk>(), std::move(world_ranks));
}

}  // namespace dsx
