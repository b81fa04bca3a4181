// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The transports under a Communicator: one rank alone, ranks that are threads, MPI processes, none (dry); and two decorators.
///
///     ThreadWorld world{4};
///     Communicator all{world.transport(2), Axes::data};          // used by the thread that is rank 2, and by no other
///     Traffic traffic;
///     Communicator counted{recorded(world.transport(2), traffic), Axes::data};
///
/// Every transport refuses buffers that don't fit a call (dsx-E507 to E509) before anybody waits.
#pragma once

#include <dsx/comm/communicator.hpp>
#include <dsx/comm/traffic.hpp>

#include <chrono>
#include <memory>
#include <vector>

namespace dsx {

/// One rank: gathers and scatters are copies where `out` is another buffer than `in`, everything else is done at once.
std::shared_ptr<Transport> self_transport();

/// One of `size` ranks whose peers don't exist: calls are checked and nothing moves.
std::shared_ptr<Transport> dry_transport(Rank rank, Extent size);

struct ThreadOptions {
  std::chrono::milliseconds time_limit{0};  // of one wait; 0: none. A rank that waits longer fails all with dsx-E504
};

/// Ranks that are threads of this process. A collective opens when all its ranks have posted it; then each does its share
/// of the work, reading its peers' buffers, inside its own wait. Sums are taken in rank order. Ranks that all wait for
/// each other are seen at once (dsx-E506).
///
/// At most 64 collectives a group, and 64 sends to one rank, are under way; one more waits for the first.
class ThreadWorld {
 public:
  explicit ThreadWorld(Extent ranks, ThreadOptions options = {});
  ~ThreadWorld();
  ThreadWorld(const ThreadWorld&) = delete;
  ThreadWorld& operator=(const ThreadWorld&) = delete;

  Extent size() const;
  /// All ranks, seen by one of them.
  std::shared_ptr<Transport> transport(Rank rank);
  /// Frees every rank that waits; they throw dsx-E501 with the reason.
  void abort(const std::string& why) noexcept;
  /// This rank's thread won't call again: who still waits for it is told so (dsx-E506).
  void leave(Rank rank) noexcept;

  struct State;

 private:
  std::shared_ptr<State> state_;
};

struct MpiOptions {
  std::chrono::milliseconds time_limit{0};  // as ThreadOptions'
  Extent chunk = Extent(1) << 30;           // elements that one MPI call is given; larger buffers are cut
};

/// All processes of MPI's world; initialises MPI at the first call, and the last owner finalises it.
/// dsx-E511 where dsx was built without MPI. Sums don't follow rank order. A group that all its ranks have let go of leaves its MPI
/// communicator to the next group of the same ranks. Should one of the processes end before MPI does, all others throw dsx-E515.
std::shared_ptr<Transport> mpi_transport_world(MpiOptions options = {});
/// For a process whose main failed: tells the others, prints the reason (only one process does), gives them half a second to unwind
/// and ends the job with code 1.
[[noreturn]] void mpi_end_failed(const std::string& why) noexcept;

/// Compares all ranks' calls of a collective (verb, size, element, combination, root) before any data move, and refuses on all
/// ranks together (dsx-E502), naming two of them with their lines; rows of an all-to-all (dsx-E516), messages (dsx-E503) likewise. A transport that
/// compares by itself is returned as it is.
std::shared_ptr<Transport> checked(std::shared_ptr<Transport> transport);

/// The events of one rank's calls in their order. Buffers and counts of a call that is over may be gone.
struct Journal {
  enum class What : std::uint8_t { post, finish, withdraw };
  struct Event {
    What what{};
    Call call{};
    Extent ranks = 1;                 // of the group
    Transport::Ticket ticket = 0;
    const Transport* group = nullptr;
  };
  std::vector<Event> events{};
};

/// Counts each call; groups made from the result count into the same Traffic. The journal is kept only where one is given.
std::shared_ptr<Transport> recorded(std::shared_ptr<Transport> transport, Traffic& traffic, Journal* journal = nullptr);

}  // namespace dsx
