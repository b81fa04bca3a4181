// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Ranks that are MPI processes: nonblocking collectives, one communicator a group, and failures that travel on one of their own.
///
///     auto world = mpi_transport_world({.time_limit = std::chrono::minutes{5}});
///     auto row = world->among({0, 1});
///
/// A rank that waits polls MPI_Test and, now and then, a communicator of its own for control: so one process's exception reaches all
/// others while they wait, and a rank whose time is up asks them who hasn't come. A process that ends without a word is seen through
/// the kernel. MPI can't take a collective back, so a withdrawn one gets a moment to end and is then left alone.
///
/// MPI_Comm_free is collective, and handles go where and when they like. So no communicator is freed before MPI ends: the members of a
/// new group first agree on one that all of them have let go of, and only where there is none do they make another.
#include "calls.hpp"
#include "peer_watch.hpp"

#include <dsx/comm/transports.hpp>

#if DSX_HAS_MPI
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <list>
#include <map>
#include <numeric>
#include <optional>
#include <thread>

namespace dsx {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds unwinding_time{250};  // for the other ranks, before the job is ended
constexpr milliseconds withdrawal_time{200}, hopeless_withdrawal_time{20};
constexpr milliseconds precedence_time{100};  // in which a lower rank's failure, printed there, silences one's own
constexpr milliseconds answering_time{200};   // in which a rank that waits answers; one that computes can't

void check_mpi(int code, std::string_view what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail<512>(what, ": ", std::string_view(text, std::size_t(length)));
}

/// For moving only: any element of that size.
MPI_Datatype type_of_size(Element e) {
  switch (bytes_of(e)) {
    case 2: return MPI_UINT16_T;
    case 4: return MPI_UINT32_T;
    case 8: return MPI_UINT64_T;
    default: return MPI_BYTE;
  }
}
MPI_Datatype type_of_number(Element e) {
  switch (e) {
    case Element::f32: return MPI_FLOAT;
    case Element::f64: return MPI_DOUBLE;
    case Element::i32: return MPI_INT32_T;
    case Element::u32: return MPI_UINT32_T;
    case Element::i64: return MPI_INT64_T;
    case Element::u64: return MPI_UINT64_T;
    default: return MPI_UINT16_T;  // bf16
  }
}

template <class T>
void add(void* in, void* inout, int* n, MPI_Datatype*) {
  const T* x = static_cast<const T*>(in);
  T* sum = static_cast<T*>(inout);
  for (int i = 0; i < *n; ++i) sum[i] = T(float(sum[i]) + float(x[i]));
}
template <class T>
void maximum(void* in, void* inout, int* n, MPI_Datatype*) {
  const T* x = static_cast<const T*>(in);
  T* most = static_cast<T*>(inout);
  for (int i = 0; i < *n; ++i)
    if (x[i] > most[i] || x[i] != x[i]) most[i] = x[i];  // a NaN wins
}

/// Ranks with an MPI communicator, for one group at a time.
struct Circle {
  MPI_Comm comm = MPI_COMM_NULL;
  std::vector<Rank> members{};    // of the world
  Extent index = 0;               // among the circles of these members, on each of them
  Extent handles = 0;             // transports of this rank
  std::uint64_t collectives = 0;  // that this rank has posted
  int uses = 0;                   // groups it has served: it gives their messages' tags, so that none reaches a later group
  bool clean = true;              // no call was left under way
};

/// A call that MPI works on. Its address is stable, as the counts' have to be.
struct Pending {
  Transport::Ticket ticket = 0;
  Call call{};
  std::vector<MPI_Request> requests{};
  std::vector<int> counts{}, places{};
  std::vector<std::byte> part{};  // a scattered part that may not be written where it is read
  std::uint64_t number = 0;       // of a collective among its circle's
  Clock::time_point since{};      // of waiting; 0: nobody has waited yet
  int code = MPI_SUCCESS;
  Extent received = 0;            // elements of a message
  int unfit = -1, came = 0;       // an all-to-all's request that other rows came for than expected; their elements, -1: more
  bool done = false;
};

std::string bytes_of_words(const std::vector<std::uint64_t>& words) {
  return {reinterpret_cast<const char*>(words.data()), words.size() * sizeof(std::uint64_t)};
}
std::vector<std::uint64_t> words_of_bytes(std::string_view bytes) {
  std::vector<std::uint64_t> words(bytes.size() / sizeof(std::uint64_t));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(std::uint64_t));
  return words;
}
std::string list_of(const std::vector<Rank>& ranks) {
  std::string text;
  for (const Rank r : ranks) text += concat(text.empty() ? "" : ", ", r);
  return "{" + text + "}";
}

struct World {
  explicit World(MpiOptions chosen) : options{chosen} {
    int already = 0, level = 0;
    MPI_Initialized(&already);
    int over = 0;
    MPI_Finalized(&over);
    if (over) fail<512>("MPI's world was finalised and can't be entered again");
    if (!already) check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level), "MPI_Init_thread");
    owns = !already;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    int r = 0, n = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &r), MPI_Comm_size(MPI_COMM_WORLD, &n);
    rank = Rank(r), size = Extent(n);
    check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &control), "MPI_Comm_dup");
    calls = std::make_shared<Circle>();
    check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &calls->comm), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(control, MPI_ERRORS_RETURN), MPI_Comm_set_errhandler(calls->comm, MPI_ERRORS_RETURN);
    calls->members.resize(size), calls->handles = 1;  // for good
    std::iota(calls->members.begin(), calls->members.end(), Rank(0));
    circles[calls->members].push_back(calls);
    MPI_Op_create(&add<bf16>, 1, &add_bf16), MPI_Op_create(&maximum<bf16>, 1, &max_bf16);
    MPI_Op_create(&maximum<float>, 1, &max_f32), MPI_Op_create(&maximum<double>, 1, &max_f64);
    current = this;
    watch_peers();
  }
  ~World() {
    watch.stop();
    current = nullptr;
    // Ending in good order waits for the other ranks, which a failed one may not.
    if (owns && !failed && std::uncaught_exceptions() == 0) MPI_Finalize();
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  MPI_Op operation(Element e, Combine combine) const {
    if (combine == Combine::sum) return e == Element::bf16 ? add_bf16 : MPI_SUM;
    return e == Element::bf16 ? max_bf16 : e == Element::f32 ? max_f32 : e == Element::f64 ? max_f64 : MPI_MAX;
  }

  /// From here until MPI_Finalize, which deletes the attributes of MPI_COMM_SELF first, no other process may end.
  void watch_peers() {
    const host::Process own = host::this_process();
    std::vector<host::Process> all(size);
    check_mpi(MPI_Allgather(&own, sizeof own, MPI_BYTE, all.data(), sizeof own, MPI_BYTE, control), "MPI_Allgather");
    all[rank].machine = own.machine + 1;
    for (host::Process& p : all)
      if (p.machine != own.machine) p.id = 0;
    const auto ends = [](MPI_Comm, int, void*, void*) {
      if (current) current->watch.stop();
      return MPI_SUCCESS;
    };
    int key = MPI_KEYVAL_INVALID;
    MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, ends, &key, nullptr);
    MPI_Comm_set_attr(MPI_COMM_SELF, key, nullptr);
    MPI_Comm_free_keyval(&key);  // when the attribute goes
    watch.start(all);
  }

  // -- control

  enum Tag { failed_tag = 1, unwound_tag, question_tag, answer_tag, offer_tag, choice_tag };
  void tell(Rank to, Tag tag, std::string text) noexcept {
    const auto left = [](Note& note) {
      int over = 0;
      return MPI_Test(&note.request, &over, MPI_STATUS_IGNORE) != MPI_SUCCESS || over;
    };
    while (!notes.empty() && left(notes.front())) notes.pop_front();
    Note& note = notes.emplace_back(std::move(text));  // kept, for nobody waits until it has left
    MPI_Isend(note.text.data(), int(note.text.size()), MPI_BYTE, int(to), tag, control, &note.request);
  }
  void tell_all(Tag tag, const std::string& text) noexcept {
    for (Rank r = 0; r < size; ++r)
      if (r != rank && watch.ended() != r) tell(r, tag, text.substr(0, 2'000));  // short enough to leave at once
  }
  void announce(const std::string& text) noexcept {
    if (announced) return;
    announced = failed = true;
    if (why.empty()) why = text;
    tell_all(failed_tag, text);
  }
  /// Takes in what others said, and answers; returns whether some rank failed.
  bool listen() noexcept {
    for (;;) {
      int here = 0, bytes = 0;
      MPI_Status status;
      if (MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, control, &here, &status) != MPI_SUCCESS || !here) break;
      MPI_Get_count(&status, MPI_BYTE, &bytes);
      std::string text(std::size_t(bytes), ' ');
      MPI_Recv(text.data(), bytes, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG, control, MPI_STATUS_IGNORE);
      const Rank from = Rank(status.MPI_SOURCE);
      switch (status.MPI_TAG) {
        case failed_tag:
          lower_failed = lower_failed || from < rank;
          if (!std::exchange(failed, true)) why = std::move(text);
          break;
        case unwound_tag: ++unwound; break;
        case question_tag: answer(from, words_of_bytes(text)); break;
        default: inbox[{Tag(status.MPI_TAG), from}].push_back(std::move(text));
      }
    }
    if (!failed && watch.ended()) failed = lost = true;
    return failed;
  }
  /// `waiting()`: what this rank does meanwhile.
  template <class Text>
  void throw_if_failed(Text waiting) {
    if (lost) fail<515>("the process of rank ", *watch.ended(), " has ended, which rank ", rank, " saw in ", waiting());
    if (failed) fail<501>("another rank failed: ", why);
  }

  // -- who hasn't come

  /// Words: the question's number, a collective's, its circle's index and members.
  void answer(Rank from, const std::vector<std::uint64_t>& words) noexcept {
    const auto known = circles.find({words.begin() + 3, words.end()});
    const bool arrived = known != circles.end() && words[2] < known->second.size() && known->second[words[2]]->collectives >= words[1];
    tell(from, answer_tag, bytes_of_words({words[0], arrived}) + (has_called ? "its last call was " + host::to_text(last) : "it has called nothing"));
  }
  /// "; rank 2 hasn't arrived: its last call was ...", asked of the ranks that a late call waits for.
  std::string absentees(const Circle& circle, const Pending& p) {
    std::vector<Rank> asked;
    if (!host::is_collective(p.call.verb)) asked = {circle.members[p.call.peer]};
    else for (const Rank r : circle.members) if (r != rank) asked.push_back(r);
    std::vector<std::uint64_t> question{++questions, p.number, circle.index};
    if (!host::is_collective(p.call.verb)) question[1] = ~std::uint64_t(0);  // nobody's collectives come so far
    question.insert(question.end(), circle.members.begin(), circle.members.end());
    for (const Rank r : asked) tell(r, question_tag, bytes_of_words(question));
    std::string text;
    for (const auto since = Clock::now(); !asked.empty() && Clock::now() - since < answering_time && !listen(); std::this_thread::yield())
      std::erase_if(asked, [&](Rank r) {
        const auto letter = take(answer_tag, r);
        if (!letter) return false;
        const auto words = words_of_bytes(std::string_view{*letter}.substr(0, 16));
        if (words[0] != questions) return false;  // of an earlier question
        if (!words[1]) text += concat("; rank ", r, " hasn't arrived: ", letter->substr(16));
        return true;
      });
    for (const Rank r : asked) text += concat("; rank ", r, " doesn't answer: it computes, or stands still");
    return text.empty() ? "; all ranks have arrived" : text;
  }

  // -- groups

  std::optional<std::string> take(Tag tag, Rank from) {
    auto& letters = inbox[{tag, from}];
    if (letters.empty()) return std::nullopt;
    std::string text = std::move(letters.front());
    letters.pop_front();
    return text;
  }
  std::vector<std::uint64_t> expect(Tag tag, Rank from, const std::vector<Rank>& members) {
    const auto doing = [&] { return concat("asking for the group ", list_of(members)); };
    // The first member knows who is missing: its time is up first.
    const milliseconds limit = options.time_limit + (tag == choice_tag ? answering_time : milliseconds{0});
    for (const auto since = Clock::now();; std::this_thread::yield()) {
      listen();
      if (const auto text = take(tag, from)) return words_of_bytes(*text);
      throw_if_failed(doing);
      if (options.time_limit.count() > 0 && Clock::now() - since > limit)
        fail<504>("rank ", rank, " waited ", limit.count(), " ms ", doing(), "; rank ", from,
                  tag == choice_tag ? " hasn't answered" : " hasn't asked");
    }
  }
  /// A communicator among these ranks. All of them have asked before any goes on, and each has let go of the one that is used again
  /// after as many collectives as the others.
  std::shared_ptr<Circle> join(const std::vector<Rank>& members) {
    auto& known = circles[members];
    std::vector<std::uint64_t> offer{members.size()};
    offer.insert(offer.end(), members.begin(), members.end());
    for (const auto& c : known) offer.push_back(c->handles == 0 && c->clean ? c->collectives + 1 : 0);
    std::uint64_t choice = known.size();
    if (members.front() != rank) {
      tell(members.front(), offer_tag, bytes_of_words(offer));
      choice = expect(choice_tag, members.front(), members).at(0);
    } else {
      for (const Rank r : members) {
        if (r == rank) continue;
        const auto theirs = expect(offer_tag, r, members);
        const Extent n = theirs[0];
        const std::vector<Rank> their_members(theirs.begin() + 1, theirs.begin() + 1 + std::ptrdiff_t(n));
        if (their_members != members)
          fail<510>("rank ", rank, " asks for the group ", list_of(members), ", rank ", r, " for ", list_of(their_members));
        for (Extent i = 1 + n; i < offer.size(); ++i)
          if (offer[i] != theirs[i]) offer[i] = 0;
      }
      for (Extent i = known.size(); i-- > 0;)
        if (offer[1 + members.size() + i] > 0) choice = i;
      for (const Rank r : members)
        if (r != rank) tell(r, choice_tag, bytes_of_words({choice}));
    }
    if (choice == known.size()) known.push_back(make(members, choice));
    ++known[choice]->uses;
    return known[choice];
  }
  static std::shared_ptr<Circle> make(const std::vector<Rank>& members, Extent index) {
    auto circle = std::make_shared<Circle>();
    circle->members = members, circle->index = index;
    MPI_Group all, some;
    const std::vector<int> ranks(members.begin(), members.end());
    MPI_Comm_group(MPI_COMM_WORLD, &all);
    check_mpi(MPI_Group_incl(all, int(ranks.size()), ranks.data(), &some), "MPI_Group_incl");
    check_mpi(MPI_Comm_create_group(MPI_COMM_WORLD, some, 0, &circle->comm), "MPI_Comm_create_group");
    MPI_Group_free(&some), MPI_Group_free(&all);
    MPI_Comm_set_errhandler(circle->comm, MPI_ERRORS_RETURN);
    return circle;
  }

  struct Note {
    explicit Note(std::string t) : text{std::move(t)} {}
    std::string text;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  static inline World* current = nullptr;
  const MpiOptions options;
  bool owns = true;
  Rank rank = 0;
  Extent size = 1;
  MPI_Comm control = MPI_COMM_NULL;
  std::shared_ptr<Circle> calls{};
  MPI_Op add_bf16{}, max_bf16{}, max_f32{}, max_f64{};
  host::PeerWatch watch{};
  bool failed = false, announced = false, lower_failed = false;
  bool lost = false;  // failed, and nobody said why: a process has ended
  std::string why{};
  Extent unwound = 0;
  std::list<Note> notes{};
  std::map<std::pair<Tag, Rank>, std::deque<std::string>> inbox{};
  std::map<std::vector<Rank>, std::vector<std::shared_ptr<Circle>>> circles{};
  std::list<Pending> abandoned{};  // MPI may still write to them
  Transport::Ticket tickets = 0;
  std::uint64_t questions = 0;
  Call last{};
  bool has_called = false;
  Clock::time_point withdrawn_since{};
};

class MpiTransport final : public Transport {
 public:
  MpiTransport(std::shared_ptr<World> world, std::shared_ptr<Circle> circle, Rank me)
      : world_{std::move(world)}, circle_{std::move(circle)}, comm_{circle_->comm}, tag_{circle_->uses % 16'384 * 2}, rows_tag_{tag_ + 1}, me_{me} {
    ++circle_->handles;
  }
  ~MpiTransport() override {
    --circle_->handles;
    if (!pending_.empty()) circle_->clean = false;
    world_->abandoned.splice(world_->abandoned.end(), pending_);
  }
  Rank rank() const override { return me_; }
  Extent size() const override { return circle_->members.size(); }
  bool ordered() const override { return size() == 1; }

  Ticket post(const Call& call) override {
    host::check(call, me_, size());
    world_->throw_if_failed([&] { return host::to_text(call); });
    world_->last = call.stands_for ? *call.stands_for : call, world_->has_called = true;
    if (idle_.empty()) idle_.emplace_back();
    Pending& p = idle_.front();
    p.ticket = ++world_->tickets, p.call = call, p.since = {}, p.code = MPI_SUCCESS, p.received = 0, p.unfit = -1, p.done = false;
    p.requests.clear(), p.part.clear();
    if (host::is_collective(call.verb)) p.number = ++circle_->collectives;
    if (size() == 1) host::serve_alone(call), p.done = true;
    else begin(p);
    pending_.splice(pending_.end(), idle_, idle_.begin());
    return p.ticket;
  }
  bool ready(Ticket ticket) override {
    Pending& p = *find(ticket);
    return test(p) || world_->listen() || late(p);
  }
  void finish(Ticket ticket) override {
    const auto at = find(ticket);
    Pending& p = *at;
    for (int polls = 1; !test(p); ++polls) {
      if (polls % 32 == 0) {
        if (world_->listen()) break;
        if (late(p)) {
          const std::string missing = world_->absentees(*circle_, p);
          if (world_->failed) break;
          fail<504>("rank ", world_->rank, " waited ", world_->options.time_limit.count(), " ms in ", host::to_text(p.call), missing);
        }
      }
      if (polls > 500) std::this_thread::yield();
    }
    if (!p.done) {
      abandon(at);
      world_->throw_if_failed([&] { return host::to_text(p.call); });
    }
    idle_.splice(idle_.end(), pending_, at);
    if (p.unfit >= 0) refuse_rows(p);
    if (p.code == MPI_ERR_TRUNCATE) refuse_message(p, "the message is longer");
    if (p.code != MPI_SUCCESS) check_mpi(p.code, host::to_text(p.call));
    if (p.call.verb == Verb::receive && p.received != p.call.out.size()) refuse_message(p, concat("the message has ", p.received));
    if (!p.part.empty()) std::memcpy(p.call.out.data, p.part.data(), p.part.size());
  }
  void withdraw(Ticket ticket) noexcept override {
    const auto at = find(ticket);
    Pending& p = *at;
    if (p.call.verb == Verb::receive)
      for (MPI_Request& r : p.requests)
        if (r != MPI_REQUEST_NULL) MPI_Cancel(&r);
    Clock::time_point& since = world_->withdrawn_since;
    if (since == Clock::time_point{}) since = Clock::now();
    while (!test(p) && Clock::now() - since < (world_->listen() ? hopeless_withdrawal_time : withdrawal_time)) std::this_thread::yield();
    if (p.done) idle_.splice(idle_.end(), pending_, at);
    else abandon(at);
  }
  std::shared_ptr<Transport> among(const std::vector<Rank>& members) override {
    const Rank place = host::place_among(members, me_, size());
    std::vector<Rank> world_ranks;
    for (const Rank m : members) world_ranks.push_back(circle_->members[m]);
    if (members.size() > 1) return std::make_shared<MpiTransport>(world_, world_->join(world_ranks), place);
    auto alone = std::make_shared<Circle>();
    alone->members = std::move(world_ranks);
    return std::make_shared<MpiTransport>(world_, std::move(alone), place);
  }
  void abort(const std::string& why) noexcept override { world_->announce(why); }

 private:
  [[noreturn]] void refuse_message(const Pending& p, const std::string& what) const {
    fail<503>("rank ", world_->rank, " calls ", host::to_text(p.call), ", but ", what);
  }
  [[noreturn]] void refuse_rows(const Pending& p) const {
    const Rank from = Rank(p.places[std::size_t(p.unfit)]);
    fail<516>("rank ", world_->rank, " expects ", p.call.rows_from(from, size()), " rows from rank ", circle_->members[from], " in ",
              host::to_text(p.call), ", but of ", p.counts[std::size_t(p.unfit)], " elements ",
              p.came < 0 ? "more" : std::to_string(p.came), " came");
  }
  std::list<Pending>::iterator find(Ticket ticket) {
    return std::find_if(pending_.begin(), pending_.end(), [&](const Pending& p) { return p.ticket == ticket; });
  }
  void abandon(std::list<Pending>::iterator at) noexcept {
    circle_->clean = false;
    world_->abandoned.splice(world_->abandoned.end(), pending_, at);
  }
  /// Whether the call is over; a failed one is too.
  bool test(Pending& p) noexcept {
    if (p.done) return true;
    bool all = true;
    for (int i = 0; i < int(p.requests.size()); ++i) {
      MPI_Request& request = p.requests[std::size_t(i)];
      if (request == MPI_REQUEST_NULL) continue;
      const bool rows = p.call.verb == Verb::all_to_all && i < int(p.counts.size());
      int over = 0, n = 0;
      MPI_Status status;
      const int code = MPI_Test(&request, &over, &status);
      if (code != MPI_SUCCESS) {
        MPI_Error_class(code, &p.code);
        over = 1, request = MPI_REQUEST_NULL;
        if (rows && p.code == MPI_ERR_TRUNCATE) p.unfit = i, p.came = -1;
      } else if (over && rows) {
        MPI_Get_count(&status, type_of_size(p.call.out.element), &n);
        if (n != p.counts[std::size_t(i)]) p.unfit = i, p.came = n;
      } else if (over && p.call.verb == Verb::receive) {
        MPI_Get_count(&status, type_of_size(p.call.out.element), &n);
        p.received += n == MPI_UNDEFINED ? 0 : Extent(n);
      }
      all = all && over;
    }
    return p.done = all;
  }
  bool late(Pending& p) const {
    if (world_->options.time_limit.count() == 0) return false;
    if (p.since == Clock::time_point{}) p.since = Clock::now();
    return Clock::now() - p.since > world_->options.time_limit;
  }
  MPI_Request& another(Pending& p) const { return p.requests.emplace_back(MPI_REQUEST_NULL); }
  template <class F>
  void in_chunks(const View& whole, F f) const {
    for (Extent begin = 0; begin < whole.size(); begin += world_->options.chunk)
      f(whole.part({begin, std::min(whole.size(), begin + world_->options.chunk)}));
  }
  /// A message, in pieces that receiver and sender cut alike; of nothing there is one too.
  template <class F>
  void in_pieces(const View& whole, F f) const {
    if (whole.size() == 0) f(whole);
    else in_chunks(whole, f);
  }
  /// Each rank's elements and where they begin, as MPI wants them.
  void lay_out(Pending& p, const View& whole) const {
    p.counts.resize(size()), p.places.resize(size());
    for (Rank r = 0; r < size(); ++r) {
      const Range part = host::part_of(whole, size(), r);
      p.counts[r] = int(part.size()), p.places[r] = int(part.begin);
    }
  }

  void begin(Pending& p) {
    const Call& c = p.call;
    const View &in = c.in, &out = c.out;
    const auto ok = [&](int code) {
      if (code != MPI_SUCCESS) check_mpi(code, host::to_text(c));
    };
    const MPI_Datatype number = type_of_number(in.element), bits = type_of_size(in.element);
    const MPI_Op op = world_->operation(in.element, c.combine);
    const bool short_enough = c.whole().size() <= world_->options.chunk;
    switch (c.verb) {
      case Verb::all_reduce:
        host::copy(in, out);
        return in_chunks(out, [&](const View& v) { ok(MPI_Iallreduce(MPI_IN_PLACE, v.data, int(v.size()), number, op, comm_, &another(p))); });
      case Verb::reduce_scatter: {
        View to = out;
        if (host::share_memory(in, out)) p.part.resize(out.bytes()), to.data = p.part.data();
        if (short_enough) {
          lay_out(p, in);
          return ok(MPI_Ireduce_scatter(in.data, to.data, p.counts.data(), number, op, comm_, &another(p)));
        }
        for (Rank r = 0; r < size(); ++r) {
          const View theirs = in.part(host::part_of(in, size(), r));
          Extent done = 0;
          in_chunks(theirs, [&](const View& v) {
            void* at = r == me_ ? to.pointer<std::byte>() + done * bytes_of(v.element) : nullptr;
            ok(MPI_Ireduce(v.data, at, int(v.size()), number, op, int(r), comm_, &another(p)));
            done += v.size();
          });
        }
        return;
      }
      case Verb::all_gather: {
        const View mine = out.part(host::part_of(out, size(), me_));
        host::copy(in, mine);
        if (short_enough) {
          lay_out(p, out);
          return ok(MPI_Iallgatherv(MPI_IN_PLACE, 0, bits, out.data, p.counts.data(), p.places.data(), bits, comm_, &another(p)));
        }
        for (Rank r = 0; r < size(); ++r)
          in_chunks(out.part(host::part_of(out, size(), r)),
                    [&](const View& v) { ok(MPI_Ibcast(v.data, int(v.size()), bits, int(r), comm_, &another(p))); });
        return;
      }
      case Verb::all_to_all: {  // messages: what is one's whole is not the other's, so only two ranks know alike how to cut what they exchange
        p.counts.clear(), p.places.clear();
        Extent begin = 0;
        View own = out;
        for (Rank r = 0; r < size(); ++r) {
          const View theirs = out.rows({begin, begin + c.rows_from(r, size())});
          begin += theirs.shape.rows;
          if (r == me_) own = theirs;
          else in_pieces(theirs, [&](const View& v) {
            p.counts.push_back(int(v.size())), p.places.push_back(int(r));
            ok(MPI_Irecv(v.data, int(v.size()), bits, int(r), rows_tag_, comm_, &another(p)));
          });
        }
        begin = 0;
        for (Rank r = 0; r < size(); ++r) {
          const View theirs = in.rows({begin, begin + c.rows_to(r, size())});
          begin += theirs.shape.rows;
          if (r == me_) host::copy(theirs, own);
          else in_pieces(theirs, [&](const View& v) { ok(MPI_Isend(v.data, int(v.size()), bits, int(r), rows_tag_, comm_, &another(p))); });
        }
        return;
      }
      case Verb::broadcast:
        if (c.peer == me_) host::copy(in, out);
        return in_chunks(out, [&](const View& v) { ok(MPI_Ibcast(v.data, int(v.size()), bits, int(c.peer), comm_, &another(p))); });
      case Verb::send:
        return in_pieces(in, [&](const View& v) { ok(MPI_Isend(v.data, int(v.size()), bits, int(c.peer), tag_, comm_, &another(p))); });
      case Verb::receive:
        return in_pieces(out, [&](const View& v) { ok(MPI_Irecv(v.data, int(v.size()), bits, int(c.peer), tag_, comm_, &another(p))); });
      case Verb::barrier: return ok(MPI_Ibarrier(comm_, &another(p)));
    }
  }

  std::shared_ptr<World> world_;
  std::shared_ptr<Circle> circle_;
  const MPI_Comm comm_;
  const int tag_, rows_tag_;  // of messages, of an all-to-all's rows: neither is taken for the other
  const Rank me_;
  std::list<Pending> pending_{}, idle_{};  // nodes wander, so that the steady state allocates nothing here
};

}  // namespace

std::shared_ptr<Transport> mpi_transport_world(MpiOptions options) {
  static std::weak_ptr<World> only;
  auto world = only.lock();
  if (!world) only = world = std::make_shared<World>(options);
  return std::make_shared<MpiTransport>(world, world->calls, world->rank);
}

void mpi_end_failed(const std::string& why) noexcept {
  World* world = World::current;
  if (!world) std::_Exit(1);
  world->watch.stop();
  const bool own = !why.starts_with("dsx-E501: another rank failed");
  if (own) world->announce(why);
  world->failed = true;
  bool speaks = own;
  for (const auto since = Clock::now(); own && world->rank > 0 && speaks && Clock::now() - since < precedence_time;) {
    world->listen();
    speaks = !world->lower_failed;
    std::this_thread::sleep_for(milliseconds{1});
  }
  if (speaks) {
    const std::string line = why + "\n";
    std::fwrite(line.data(), 1, line.size(), stderr);
  }
  std::fflush(nullptr);
  if (world->lost || world->why.starts_with("dsx-E515")) {  // the launcher knows
    host::wait_for_launcher(300);
    std::_Exit(1);
  }
  world->tell_all(World::unwound_tag, "");
  if (speaks)
    for (const auto since = Clock::now(); Clock::now() - since < unwinding_time && world->unwound + 1 < world->size; world->listen())
      std::this_thread::sleep_for(milliseconds{1});
  else
    host::wait_for_launcher(4 * unwinding_time.count());
  MPI_Abort(MPI_COMM_WORLD, 1);
  std::_Exit(1);
}

}  // namespace dsx
#else
#include <cstdlib>

namespace dsx {

std::shared_ptr<Transport> mpi_transport_world(MpiOptions) {
  fail<511>("this build of dsx has no MPI; install an MPI library (on Debian: libopenmpi-dev) and configure with -DDSX_ENABLE_MPI=ON");
}
void mpi_end_failed(const std::string&) noexcept { std::_Exit(1); }

}  // namespace dsx
#endif
