// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The conformance suite on one rank, on threads, through the decorators; what moves nothing counts the same.
#include "conformance.hpp"

using namespace dsx;

namespace {

/// A transport that compares nothing, so that checked() has to.
class Plain final : public Transport {
 public:
  Plain(std::shared_ptr<Transport> inner, Extent* posted) : inner_{std::move(inner)}, posted_{posted} {}
  Rank rank() const override { return inner_->rank(); }
  Extent size() const override { return inner_->size(); }
  bool ordered() const override { return inner_->ordered(); }
  Ticket post(const Call& call) override {
    *posted_ += call.whole().element != Element::u8;  // not the letters of checked()
    return inner_->post(call);
  }
  void finish(Ticket ticket) override { inner_->finish(ticket); }
  bool ready(Ticket ticket) override { return inner_->ready(ticket); }
  void withdraw(Ticket ticket) noexcept override { inner_->withdraw(ticket); }
  std::shared_ptr<Transport> among(const std::vector<Rank>& members) override { return std::make_shared<Plain>(inner_->among(members), posted_); }
  void abort(const std::string& why) noexcept override { inner_->abort(why); }

 private:
  std::shared_ptr<Transport> inner_;
  Extent* posted_;
};

void conform(Extent ranks) {
  run_threads(ranks, [](std::shared_ptr<Transport> world) { conformance::all(world); });
  ThreadWorld unused{1};  // run_threads gives a single rank the self transport; threads serve one rank too
  if (ranks == 1) conformance::all(unused.transport(0));
}

bool same_rows(const Traffic& a, const Traffic& b) {
  return std::equal(a.rows().begin(), a.rows().end(), b.rows().begin(), b.rows().end(), [](const Traffic::Row& x, const Traffic::Row& y) {
    return x.verb == y.verb && x.axes == y.axes && x.element == y.element && x.ranks == y.ranks && x.calls == y.calls && x.elements == y.elements;
  });
}

}  // namespace

TEST_CASE("the self transport conforms") {
  conformance::all(self_transport());
  CHECK(self_transport()->ordered());
}
TEST_CASE("one thread rank conforms") { conform(1); }
TEST_CASE("two thread ranks conform") { conform(2); }
TEST_CASE("three thread ranks conform") { conform(3); }
TEST_CASE("four thread ranks conform") { conform(4); }
TEST_CASE("eight thread ranks conform") { conform(8); }

TEST_CASE("checked and recorded transports conform") {
  for (const Extent ranks : {1, 2, 4}) {
    std::vector<Extent> posted(ranks);
    std::vector<Traffic> traffic(ranks);
    run_threads(ranks, [&](std::shared_ptr<Transport> world) {
      const Rank rank = world->rank();
      const auto through = recorded(checked(std::make_shared<Plain>(world, &posted[rank])), traffic[rank]);
      conformance::all(through);
      CHECK(traffic[rank].calls(Verb::all_reduce) > 100);
      CHECK(checked(world) == world);  // threads compare by themselves
    });
  }
}

TEST_CASE("every transport refuses what doesn't fit, before anybody waits") {
  conformance::refusals(self_transport());
  conformance::refusals(dry_transport(1, 3));
  run_threads(3, [](std::shared_ptr<Transport> world) {
    conformance::refusals(world);
    Extent posted = 0;
    conformance::refusals(checked(std::make_shared<Plain>(world, &posted)));
    CHECK(posted == 0);
  });
  CHECK(conformance::error_of([] { dry_transport(3, 3); }) == 510);
  CHECK(conformance::error_of([] { ThreadWorld{0}; }) == 510);
  CHECK(conformance::error_of([] { ThreadWorld{2}.transport(2); }) == 510);
}

TEST_CASE("a dry transport counts what threads count") {
  for (const Extent ranks : {1, 2, 4}) {
    std::vector<Traffic> wet(ranks), dry(ranks);
    run_threads(ranks, [&](std::shared_ptr<Transport> world) {
      std::vector<float> memory(256);
      conformance::one_of_each(recorded(world, wet[world->rank()]), memory.data());
    });
    for (Rank r = 0; r < ranks; ++r) {
      const auto transport = recorded(dry_transport(r, ranks), dry[r]);
      CHECK(transport->dry());
      conformance::one_of_each(transport, nullptr);
      CHECK(same_rows(wet[r], dry[r]));
    }
  }
  const auto group = dry_transport(5, 8)->among({1, 5, 7});
  CHECK(group->rank() == 1);
  CHECK(group->size() == 3);
}

TEST_CASE("traffic is counted by the ring convention") {
  Traffic traffic;
  const auto world = recorded(dry_transport(0, 4), traffic);
  conformance::one_of_each(world, nullptr);
  CHECK(traffic.elements(Verb::all_reduce) == 21);
  CHECK(traffic.wire_bytes(Verb::all_reduce) == 2 * 21 * 4 * 3 / 4.);
  CHECK(traffic.wire_bytes(Verb::reduce_scatter) == 20 * 4 * 3 / 4.);
  CHECK(traffic.wire_bytes(Verb::all_gather) == 20 * 4 * 3 / 4.);
  CHECK(traffic.wire_bytes(Verb::broadcast) == 5 * 4 * 3 / 4.);
  CHECK(traffic.wire_bytes(Verb::send) == 16);
  CHECK(traffic.wire_bytes(Verb::receive) == 0);  // its sender counted it
  // 0, 2, 1 and 0 rows of 2 elements, then shares of 3, 3, 2 and 2: the first ones stay here.
  CHECK(traffic.elements(Verb::all_to_all) == (2 + 1) * 2 + (3 + 2 + 2) * 2);
  CHECK(traffic.wire_bytes(Verb::all_to_all) == 80);
  CHECK(traffic.wire_bytes() == 126 + 60 + 60 + 15 + 16 + 80);
  CHECK(traffic.calls(Verb::barrier) == 1);
  CHECK(traffic.elements(Verb::send, Axes::data) == 4);
  CHECK(traffic.elements(Verb::send, Axes::tensor) == 0);

  // Groups made from it count into the same place, under their own size.
  const Communicator pair{world->among({0, 2}), Axes::tensor};
  pair.all_reduce({nullptr, {6, 1}}).wait();
  CHECK(traffic.wire_bytes(Verb::all_reduce, Axes::tensor) == 24);
  traffic.clear();
  CHECK(traffic.wire_bytes() == 0);
}

TEST_CASE("traffic of more kinds than it has rows for is refused") {
  Traffic traffic;
  const int number = conformance::error_of([&] {
    for (Extent ranks = 1; ranks < 1'000; ++ranks) Communicator{recorded(dry_transport(0, ranks), traffic), Axes::data}.barrier();
  });
  CHECK(number == 505);
}

TEST_CASE("a journal keeps the order of events") {
  Traffic traffic;
  Journal journal;
  const auto world = recorded(dry_transport(0, 2), traffic, &journal);
  const Communicator all{world, Axes::data};
  {
    Lease first = all.all_reduce({nullptr, {4, 1}});
    Lease second = all.send({nullptr, {2, 1}}, 1);
    second.wait();
  }
  using What = Journal::What;
  const std::vector<std::pair<What, Verb>> expected = {
      {What::post, Verb::all_reduce}, {What::post, Verb::send}, {What::finish, Verb::send}, {What::withdraw, Verb::all_reduce}};
  REQUIRE(journal.events.size() == expected.size());
  for (Extent i = 0; i < expected.size(); ++i) {
    CHECK(journal.events[i].what == expected[i].first);
    CHECK(journal.events[i].call.verb == expected[i].second);
    CHECK(journal.events[i].ranks == 2);
  }
}

TEST_CASE("checked ranks refuse together before anything moves") {
  std::vector<Extent> posted(3);
  std::vector<std::string> what(3);
  CHECK_THROWS_AS(run_threads(3,
                              [&](std::shared_ptr<Transport> world) {
                                const Rank rank = world->rank();
                                const Communicator all{checked(std::make_shared<Plain>(world, &posted[rank])), Axes::data};
                                std::vector<float> x(4);
                                try {
                                  all.all_reduce({x.data(), {rank == 2 ? Extent(3) : Extent(4), 1}}).wait();
                                } catch (const Error& e) {
                                  what[rank] = e.what();
                                  throw;
                                }
                              }),
                  Error);
  for (Rank r = 0; r < 3; ++r) {
    CHECK(what[r].starts_with("dsx-E502: rank 0 calls all_reduce of 4 f32 over data at "));
    CHECK(what[r].find("; rank 2 calls all_reduce of 3 f32") != std::string::npos);
    CHECK(posted[r] == 0);
  }
}

TEST_CASE("checked ranks compare the rows of an all-to-all before anything moves") {
  std::vector<Extent> posted(3);
  std::vector<std::string> what(3);
  std::vector<std::vector<float>> out(3, std::vector<float>(12, 5.F));
  const int line = __LINE__ + 8;
  const auto main = [&](std::shared_ptr<Transport> world) {
    const Rank rank = world->rank();
    const Communicator all{checked(std::make_shared<Plain>(world, &posted[rank])), Axes::expert};
    std::vector<float> in(12);
    std::vector<Extent> sent(3, 1), received(3, 1);
    if (rank == 2) received[0] = 2;
    try {
      all.all_to_all({in.data(), {6, 2}}, sent, {out[rank].data(), {6, 2}}, received).wait();
    } catch (const Error& e) {
      what[rank] = e.what();
      throw;
    }
  };
  CHECK_THROWS_AS(run_threads(3, main), Error);
  const std::string place = std::string{__FILE__} + ":" + std::to_string(line);
  for (Rank r = 0; r < 3; ++r) {
    CHECK(what[r] == "dsx-E516: rank 0 sends rank 2 1 rows in all_to_all of rows of 2 f32 over expert at " + place +
                         "; rank 2 expects 2 in all_to_all of rows of 2 f32 over expert at " + place);
    CHECK(posted[r] == 0);
    CHECK(out[r] == std::vector<float>(12, 5.F));
  }
}

TEST_CASE("a dry all-to-all takes any bound") {
  Traffic traffic;
  const Communicator all{recorded(dry_transport(1, 4), traffic), Axes::expert};
  all.all_to_all({nullptr, {10, 8}, Element::bf16}, {nullptr, {70, 8}, Element::bf16}).wait();
  CHECK(traffic.elements(Verb::all_to_all, Axes::expert) == 7 * 8);
  CHECK(traffic.wire_bytes(Verb::all_to_all) == 7 * 8 * 2);
  const std::vector<Extent> sent{0, 2, 1, 3}, received{9, 2, 0, 0};
  all.all_to_all({nullptr, {10, 8}, Element::u8}, sent, {nullptr, {70, 8}, Element::u8}, received).wait();
  CHECK(traffic.wire_bytes(Verb::all_to_all) == 7 * 8 * 2 + 4 * 8);
}

TEST_CASE("a checked message that doesn't fit is refused with both lines") {
  std::vector<std::string> what(2);
  CHECK_THROWS_AS(run_threads(2,
                              [&](std::shared_ptr<Transport> world) {
                                Extent posted = 0;
                                const Rank rank = world->rank();
                                const Communicator all{checked(std::make_shared<Plain>(world, &posted)), Axes::pipe};
                                std::vector<double> x(4);
                                try {
                                  if (rank == 0) all.send({x.data(), {4, 1}, Element::f32}, 1).wait();
                                  if (rank == 1) all.receive({x.data(), {4, 1}, Element::f64}, 0).wait();
                                } catch (const Error& e) {
                                  what[rank] = e.what();
                                  throw;
                                }
                              }),
                  Error);
  CHECK(what[1].starts_with("dsx-E503: rank 0 calls send of 4 f32 to 1 over pipe at "));
  CHECK(what[1].find("; rank 1 calls receive of 4 f64 from 0 over pipe at ") != std::string::npos);
  CHECK(what[0].starts_with("dsx-E501: another rank failed"));
}
