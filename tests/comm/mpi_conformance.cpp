// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The conformance suite on MPI processes: plain, checked and recorded, and with buffers cut into small pieces.
// processes: 2 4
// timeout: 120
#include "conformance.hpp"

using namespace dsx;

namespace {

/// MPI can be entered once a process: the world lives until the program ends.
std::shared_ptr<Transport> world(MpiOptions options = {}) {
  static const auto only = mpi_transport_world(options);
  return only;
}

}  // namespace

TEST_CASE("MPI processes conform") {
  CHECK_FALSE(world()->ordered());
  CHECK(world()->size() > 1);
  conformance::all(world());
  conformance::refusals(world());
}

TEST_CASE("checked and recorded MPI processes conform") {
  Traffic traffic;
  conformance::all(recorded(checked(world()), traffic));
  conformance::refusals(checked(world()));
  CHECK(traffic.calls(Verb::all_reduce) > 100);
}

TEST_CASE("MPI buffers longer than one call takes are cut") { conformance::all(world({.chunk = 60})); }

TEST_CASE("MPI counts what threads count") {
  Traffic mpi, dry;
  std::vector<float> memory(256);
  conformance::one_of_each(recorded(checked(world()), mpi), memory.data());
  conformance::one_of_each(recorded(dry_transport(world()->rank(), world()->size()), dry), nullptr);
  CHECK(mpi.wire_bytes() == dry.wire_bytes());
  CHECK(mpi.rows().size() == dry.rows().size());
}

TEST_CASE("MPI rows of an all-to-all that aren't expected are refused by their receiver") {
  for (const Extent extra : {1, 0}) {  // too many, then too few
    const Communicator all{world()->among([] {
      std::vector<Rank> members(world()->size());
      for (Rank r = 0; r < members.size(); ++r) members[r] = r;
      return members;
    }()), Axes::expert};
    std::vector<float> in(30), out(30);
    std::vector<Extent> sent(all.size(), 2), received(all.size(), 2);
    if (all.rank() == 0) sent[1] = 1 + 2 * extra;
    std::string what;
    try {
      all.all_to_all({in.data(), {10, 3}}, sent, {out.data(), {10, 3}}, received).wait();
    } catch (const Error& e) {
      what = e.what();
    }
    CHECK(what.starts_with(all.rank() == 1 ? "dsx-E516: rank 1 expects 2 rows from rank 0 in all_to_all of rows of 3 f32 over expert at " : ""));
    CHECK(what.ends_with(all.rank() != 1 ? "" : extra ? ", but of 6 elements more came" : ", but of 6 elements 3 came"));
    CHECK(what.empty() == (all.rank() != 1));
  }
}

TEST_CASE("MPI messages of another size are refused by their receiver") {
  const Communicator all{world(), Axes::pipe};
  std::vector<float> x(16);
  for (const Extent sent : {Extent(6), Extent(4)}) {
    if (all.rank() == 0) all.send({x.data(), {sent, 1}}, 1).wait();
    if (all.rank() == 1) CHECK(conformance::error_of([&] { all.receive({x.data(), {5, 1}}, 0).wait(); }) == 503);
  }
  all.barrier();
}
