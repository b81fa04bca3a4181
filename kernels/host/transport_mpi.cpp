// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Ranks that are MPI processes: nonblocking collectives, one communicator a group, and failures that travel on one of their own.
///
///     auto world = mpi_transport_world({.time_limit = std::chrono::minutes{5}});
///     auto row = world->among({0, 1});
///
/// A rank that waits polls MPI_Test and, now and then, the communicator of failures: so one process's exception reaches all others
/// while they wait. MPI can't take a collective back, so a withdrawn one gets a moment to end and is then left alone.
#include "calls.hpp"

#include <dsx/comm/transports.hpp>

#if DSX_HAS_MPI
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <list>
#include <numeric>
#include <thread>

namespace dsx {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds unwinding_time{400};  // for the other ranks, before the job is ended
constexpr milliseconds withdrawal_time{200}, hopeless_withdrawal_time{20};
constexpr milliseconds precedence_time{100};  // in which a lower rank's failure, printed there, silences one's own

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
    check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &failures), "MPI_Comm_dup");
    check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &calls), "MPI_Comm_dup");
    MPI_Op_create(&add<bf16>, 1, &add_bf16), MPI_Op_create(&maximum<bf16>, 1, &max_bf16);
    MPI_Op_create(&maximum<float>, 1, &max_f32), MPI_Op_create(&maximum<double>, 1, &max_f64);
    current = this;
  }
  ~World() {
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

  // -- failures

  enum Tag { failed_tag = 1, unwound_tag = 2 };
  void tell_all(Tag tag, const std::string& text) noexcept {
    messages.push_back(text.substr(0, 2'000));  // short enough to leave at once; kept, for nobody waits until they have left
    for (Rank r = 0; r < size; ++r) {
      MPI_Request request;
      if (r != rank) MPI_Isend(messages.back().data(), int(messages.back().size()), MPI_BYTE, int(r), tag, failures, &request);
    }
  }
  void announce(const std::string& text) noexcept {
    if (announced) return;
    announced = failed = true;
    if (why.empty()) why = text;
    tell_all(failed_tag, text);
  }
  /// Takes in what others said; returns whether some rank failed.
  bool listen() noexcept {
    for (;;) {
      int here = 0, bytes = 0;
      MPI_Status status;
      if (MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, failures, &here, &status) != MPI_SUCCESS || !here) return failed;
      MPI_Get_count(&status, MPI_BYTE, &bytes);
      std::string text(std::size_t(bytes), ' ');
      MPI_Recv(text.data(), bytes, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG, failures, MPI_STATUS_IGNORE);
      if (status.MPI_TAG == unwound_tag) {
        ++unwound;
        continue;
      }
      lower_failed = lower_failed || Rank(status.MPI_SOURCE) < rank;
      if (!std::exchange(failed, true)) why = text;
    }
  }

  static inline World* current = nullptr;
  const MpiOptions options;
  bool owns = true;
  Rank rank = 0;
  Extent size = 1;
  MPI_Comm failures = MPI_COMM_NULL, calls = MPI_COMM_NULL;
  MPI_Op add_bf16{}, max_bf16{}, max_f32{}, max_f64{};
  bool failed = false, announced = false, lower_failed = false;
  std::string why{};
  Extent unwound = 0;
  std::list<std::string> messages{};
  Transport::Ticket tickets = 0;
  Clock::time_point withdrawn_since{};
};

/// A call that MPI works on. Its address is stable, as the counts' have to be.
struct Pending {
  Transport::Ticket ticket = 0;
  Call call{};
  std::vector<MPI_Request> requests{};
  std::vector<int> counts{}, places{};
  std::vector<std::byte> part{};  // a scattered part that may not be written where it is read
  Clock::time_point since{};      // of waiting; 0: nobody has waited yet
  int code = MPI_SUCCESS;
  Extent received = 0;            // elements
  bool done = false;
};

class MpiTransport final : public Transport {
 public:
  MpiTransport(std::shared_ptr<World> world, MPI_Comm comm, std::vector<Rank> world_ranks, Rank me)
      : world_{std::move(world)}, comm_{comm}, world_ranks_{std::move(world_ranks)}, me_{me} {
    if (comm_ != MPI_COMM_NULL) MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  }
  Rank rank() const override { return me_; }
  Extent size() const override { return world_ranks_.size(); }
  bool ordered() const override { return size() == 1; }

  Ticket post(const Call& call) override {
    host::check(call, me_, size());
    throw_if_failed();
    if (idle_.empty()) idle_.emplace_back();
    Pending& p = idle_.front();
    p.ticket = ++world_->tickets, p.call = call, p.since = {}, p.code = MPI_SUCCESS, p.received = 0, p.done = false;
    p.requests.clear(), p.part.clear();
    if (size() == 1) copy(call.in, call.out), p.done = true;
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
        if (late(p)) fail<504>("rank ", world_ranks_[me_], " waited ", world_->options.time_limit.count(), " ms in ", host::to_text(p.call));
      }
      if (polls > 500) std::this_thread::yield();
    }
    if (!p.done) {
      abandoned_.splice(abandoned_.end(), pending_, at);
      throw_if_failed();
    }
    idle_.splice(idle_.end(), pending_, at);
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
    (p.done ? idle_ : abandoned_).splice((p.done ? idle_ : abandoned_).end(), pending_, at);
  }
  std::shared_ptr<Transport> among(const std::vector<Rank>& members) override {
    const Rank place = host::place_among(members, me_, size());
    std::vector<Rank> world_ranks;
    for (const Rank m : members) world_ranks.push_back(world_ranks_[m]);
    MPI_Comm comm = MPI_COMM_NULL;
    if (members.size() > 1) {
      MPI_Group all, some;
      std::vector<int> ranks(world_ranks.begin(), world_ranks.end());
      MPI_Comm_group(MPI_COMM_WORLD, &all);
      check_mpi(MPI_Group_incl(all, int(ranks.size()), ranks.data(), &some), "MPI_Group_incl");
      check_mpi(MPI_Comm_create_group(MPI_COMM_WORLD, some, 0, &comm), "MPI_Comm_create_group");
      MPI_Group_free(&some), MPI_Group_free(&all);
    }
    return std::make_shared<MpiTransport>(world_, comm, std::move(world_ranks), place);
  }
  void abort(const std::string& why) noexcept override { world_->announce(why); }

 private:
  void throw_if_failed() const {
    if (world_->failed) fail<501>("another rank failed: ", world_->why);
  }
  [[noreturn]] void refuse_message(const Pending& p, const std::string& what) const {
    fail<503>("rank ", world_ranks_[me_], " calls ", host::to_text(p.call), ", but ", what);
  }
  static void copy(const View& from, const View& to) {
    if (from.data != to.data && from.size() > 0) std::memcpy(to.data, from.data, from.bytes());
  }
  std::list<Pending>::iterator find(Ticket ticket) {
    return std::find_if(pending_.begin(), pending_.end(), [&](const Pending& p) { return p.ticket == ticket; });
  }
  /// Whether the call is over; a failed one is too.
  bool test(Pending& p) noexcept {
    if (p.done) return true;
    bool all = true;
    for (MPI_Request& request : p.requests) {
      if (request == MPI_REQUEST_NULL) continue;
      int over = 0;
      MPI_Status status;
      const int code = MPI_Test(&request, &over, &status);
      if (code != MPI_SUCCESS) {
        MPI_Error_class(code, &p.code);
        over = 1, request = MPI_REQUEST_NULL;
      } else if (over && p.call.verb == Verb::receive) {
        int n = 0;
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
        copy(in, out);
        return in_chunks(out, [&](const View& v) { ok(MPI_Iallreduce(MPI_IN_PLACE, v.data, int(v.size()), number, op, comm_, &another(p))); });
      case Verb::reduce_scatter: {
        const auto *o = out.pointer<std::byte>(), *i = in.pointer<std::byte>();
        const bool overlap = out.size() > 0 && o < i + in.bytes() && i < o + out.bytes();
        View to = out;
        if (overlap) p.part.resize(out.bytes()), to.data = p.part.data();
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
        copy(in, mine);
        if (short_enough) {
          lay_out(p, out);
          return ok(MPI_Iallgatherv(MPI_IN_PLACE, 0, bits, out.data, p.counts.data(), p.places.data(), bits, comm_, &another(p)));
        }
        for (Rank r = 0; r < size(); ++r)
          in_chunks(out.part(host::part_of(out, size(), r)),
                    [&](const View& v) { ok(MPI_Ibcast(v.data, int(v.size()), bits, int(r), comm_, &another(p))); });
        return;
      }
      case Verb::broadcast:
        if (c.peer == me_) copy(in, out);
        return in_chunks(out, [&](const View& v) { ok(MPI_Ibcast(v.data, int(v.size()), bits, int(c.peer), comm_, &another(p))); });
      case Verb::send:
        if (in.size() == 0) return ok(MPI_Isend(nullptr, 0, bits, int(c.peer), 0, comm_, &another(p)));
        return in_chunks(in, [&](const View& v) { ok(MPI_Isend(v.data, int(v.size()), bits, int(c.peer), 0, comm_, &another(p))); });
      case Verb::receive:
        if (out.size() == 0) return ok(MPI_Irecv(nullptr, 0, bits, int(c.peer), 0, comm_, &another(p)));
        return in_chunks(out, [&](const View& v) { ok(MPI_Irecv(v.data, int(v.size()), bits, int(c.peer), 0, comm_, &another(p))); });
      case Verb::barrier: return ok(MPI_Ibarrier(comm_, &another(p)));
    }
  }

  std::shared_ptr<World> world_;
  MPI_Comm comm_;
  std::vector<Rank> world_ranks_;
  Rank me_;
  std::list<Pending> pending_{}, idle_{}, abandoned_{};  // nodes wander, so that the steady state allocates nothing here
};

}  // namespace

std::shared_ptr<Transport> mpi_transport_world(MpiOptions options) {
  static std::weak_ptr<World> only;
  auto world = only.lock();
  if (!world) only = world = std::make_shared<World>(options);
  std::vector<Rank> all(world->size);
  std::iota(all.begin(), all.end(), Rank(0));
  return std::make_shared<MpiTransport>(world, world->calls, std::move(all), world->rank);
}

void mpi_end_failed(const std::string& why) noexcept {
  World* world = World::current;
  if (!world) std::_Exit(1);
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
  world->tell_all(World::unwound_tag, "");
  const milliseconds patience = speaks ? unwinding_time : 4 * unwinding_time;  // who hasn't spoken waits for the end
  for (const auto since = Clock::now(); Clock::now() - since < patience && !(speaks && world->unwound + 1 >= world->size);) {
    if (speaks) world->listen();
    std::this_thread::sleep_for(milliseconds{1});
  }
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
