// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Thread ranks that fail: every rank throws, in time, with rank and line, and no buffer is touched after its owner is gone.
#include <dsx/comm/launch.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>

using namespace dsx;
using std::chrono::milliseconds;

namespace {

using Clock = std::chrono::steady_clock;

View view(std::vector<float>& x) { return {x.data(), {x.size(), 1}}; }

/// What each rank threw, and when the last one had.
struct Outcome {
  std::vector<std::string> what;
  std::string rethrown{};
  milliseconds took{};
  bool all_start_with(std::string_view number) const {
    return std::all_of(what.begin(), what.end(), [&](const std::string& w) { return w.starts_with(number); });
  }
  bool all_contain(std::string_view text) const {
    return std::all_of(what.begin(), what.end(), [&](const std::string& w) { return w.find(text) != std::string::npos; });
  }
};
Outcome outcome_of(Extent ranks, ThreadOptions options, const std::function<void(Rank, const Communicator&)>& main) {
  Outcome outcome{std::vector<std::string>(ranks)};
  const auto begin = Clock::now();
  try {
    run_threads(
        ranks,
        [&](std::shared_ptr<Transport> world) {
          const Rank rank = world->rank();
          try {
            main(rank, Communicator{world, Axes::data});
          } catch (const std::exception& e) {
            outcome.what[rank] = e.what();
            throw;
          }
        },
        options);
  } catch (const std::exception& e) {
    outcome.rethrown = e.what();
  }
  outcome.took = std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
  return outcome;
}
std::string at(int line) { return std::string{__FILE__} + ":" + std::to_string(line); }

/// A buffer that is overwritten when its owner has gone, and given back: the address sanitizer sees who still reads it.
struct Poisoned {
  std::vector<float> memory;
  explicit Poisoned(Extent n, float value = 1) : memory(n, value) {}
  ~Poisoned() { std::fill(memory.begin(), memory.end(), -1e30F); }
  View view() { return {memory.data(), {memory.size(), 1}}; }
};

}  // namespace

TEST_CASE("thread ranks that call different collectives all name both lines") {
  const int line = __LINE__ + 4;
  const Outcome o = outcome_of(4, {}, [](Rank rank, const Communicator& all) {
    std::vector<float> x(8);
    // The first three agree.
    if (rank != 3) all.all_reduce(view(x)).wait();
    else all.broadcast(view(x), 0).wait();
  });
  CHECK(o.all_start_with("dsx-E502: rank 0 calls all_reduce of 8 f32 over data at " + at(line)));
  CHECK(o.all_contain("; rank 3 calls broadcast of 8 f32 from 0 over data at " + at(line + 1)));
  CHECK(o.rethrown.starts_with("dsx-E502"));
  CHECK(o.took < milliseconds{1'000});
}

TEST_CASE("thread ranks compare size, element, combination, root and rows") {
  const auto refused = [](const std::function<Lease(Rank, const Communicator&, std::vector<float>&)>& call) {
    const Outcome o = outcome_of(2, {}, [&](Rank rank, const Communicator& all) {
      std::vector<float> x(64);
      call(rank, all, x).wait();
    });
    CHECK(o.took < milliseconds{1'000});
    return o.all_start_with("dsx-E502");
  };
  CHECK(refused([](Rank r, const Communicator& all, auto& x) { return all.all_reduce({x.data(), {8 + r, 1}}); }));
  CHECK(refused([](Rank r, const Communicator& all, auto& x) { return all.all_reduce({x.data(), {8, 1}, r ? Element::i32 : Element::f32}); }));
  CHECK(refused([](Rank r, const Communicator& all, auto& x) { return all.all_reduce({x.data(), {8, 1}}, r ? Combine::max : Combine::sum); }));
  CHECK(refused([](Rank r, const Communicator& all, auto& x) { return all.broadcast({x.data(), {8, 1}}, r); }));
  CHECK(refused([](Rank r, const Communicator& all, auto& x) {  // the same elements, but the rows are shared out otherwise
    const View whole{x.data(), r ? Shape{3, 4} : Shape{12, 1}};
    return all.reduce_scatter(whole, whole.rows(all.part(whole.shape.rows)));
  }));
  const std::vector<Extent> counts(2, 1);
  CHECK(refused([&](Rank r, const Communicator& all, auto& x) {  // as many elements in rows of another length
    return all.all_to_all({x.data(), {4, 2 + r}}, counts, {x.data() + 32, {4, 2 + r}}, counts);
  }));
  CHECK(refused([&](Rank r, const Communicator& all, auto& x) {
    const Element e = r ? Element::i32 : Element::f32;
    return all.all_to_all({x.data(), {4, 2}, e}, counts, {x.data() + 32, {4, 2}, e}, counts);
  }));
  CHECK(refused([&](Rank r, const Communicator& all, auto& x) {
    return r ? all.all_reduce({x.data(), {4, 2}}) : all.all_to_all({x.data(), {4, 2}}, counts, {x.data() + 32, {4, 2}}, counts);
  }));
}

TEST_CASE("rows of an all-to-all that aren't expected are refused on all ranks, and nothing moves") {
  for (const Extent expected : {0, 1, 3}) {
    std::vector<std::vector<float>> outs(4, std::vector<float>(30, 5.F));
    const int line = __LINE__ + 4;
    const Outcome o = outcome_of(4, {}, [&](Rank rank, const Communicator& all) {
      std::vector<Extent> sent(4, 2), received(4, 2);
      if (rank == 1) received[3] = expected;
      if (std::vector<float> in(30); rank == 3) all.all_to_all({in.data(), {10, 3}}, sent, {outs[rank].data(), {10, 3}}, received).wait();
      else all.all_to_all({in.data(), {10, 3}}, sent, {outs[rank].data(), {10, 3}}, received).wait();
    });
    CHECK(o.all_start_with("dsx-E516: rank 3 sends rank 1 2 rows in all_to_all of rows of 3 f32 over data at " + at(line) + "; rank 1 expects " +
                           std::to_string(expected) + " in all_to_all of rows of 3 f32 over data at " + at(line + 1)));
    CHECK(o.took < milliseconds{1'000});
    for (const auto& out : outs) CHECK(out == std::vector<float>(30, 5.F));
  }
}

TEST_CASE("a failing rank frees those that wait in an all-to-all, and nobody reads its buffers or counts afterwards") {
  struct Call {
    Poisoned in{30'000}, out{30'000};
    std::vector<Extent> sent = std::vector<Extent>(4, 5'000), received = sent;
    ~Call() { std::fill(sent.begin(), sent.end(), ~Extent(0)), std::fill(received.begin(), received.end(), ~Extent(0)); }
    Lease post(const Communicator& all) { return all.all_to_all(in.view(), sent, out.view(), received); }
  };
  for (int round = 0; round < 20; ++round) {
    const Outcome o = outcome_of(4, {}, [round](Rank rank, const Communicator& all) {
      Call first, second;
      const Lease served = first.post(all);  // by all: it is served to its end
      const Lease open = second.post(all);
      Call third;
      if (rank == Rank(round % 4)) {
        if (round % 2) std::this_thread::sleep_for(milliseconds{2});
        const Lease taken_back = third.post(all);
        fail<308>("in the middle");
      }
      third.post(all).wait();  // may open, but is not worked on by all
      all.barrier();
    });
    CHECK(o.rethrown.starts_with("dsx-E308"));
    CHECK(o.took < milliseconds{1'000});
  }
}

TEST_CASE("a rank that comes too late for an all-to-all is named, and so is one that waits elsewhere") {
  std::atomic<bool> freed = false;
  const auto exchange = [](const Communicator& all) {
    std::vector<float> in(6), out(6);
    const std::vector<Extent> counts(3, 2);
    all.all_to_all(view(in), counts, view(out), counts).wait();
  };
  const Outcome late = outcome_of(3, {milliseconds{100}}, [&](Rank rank, const Communicator& all) {
    if (rank == 2)
      while (!freed) std::this_thread::sleep_for(milliseconds{1});
    try {
      exchange(all);
    } catch (...) {
      freed = true;
      throw;
    }
  });
  CHECK(late.all_start_with("dsx-E504: rank "));
  CHECK(late.all_contain(" waited 100 ms in all_to_all of rows of 1 f32 over data at "));
  CHECK(late.all_contain("; rank 2 hasn't arrived: it has called nothing"));
  const Outcome stuck = outcome_of(3, {}, [&](Rank rank, const Communicator& all) {
    std::vector<float> x(1);
    if (rank == 2) all.receive(view(x), 0).wait();
    exchange(all);
  });
  CHECK(stuck.all_start_with("dsx-E506: no rank can go on: rank 0 waits in all_to_all of rows of 1 f32 over data at "));
  CHECK(stuck.all_contain("; rank 2 waits in receive of 1 f32 from 0"));
}

TEST_CASE("a rank leaves an all-to-all when its peers have taken their rows") {
  std::vector<std::vector<float>> buffers(6, std::vector<float>(9));  // outlive the ranks, whatever these do
  run_threads(3, [&](std::shared_ptr<Transport> world) {
    const Communicator all{world, Axes::expert};
    const std::vector<Extent> counts(3, 3);
    for (Rank late = 0; late < 3; ++late) {
      std::vector<float>&in = buffers[2 * all.rank()], &out = buffers[2 * all.rank() + 1];
      std::fill(in.begin(), in.end(), float(all.rank()));
      Lease lease = all.all_to_all(view(in), counts, view(out), counts);
      if (all.rank() == late) std::this_thread::sleep_for(milliseconds{30});
      lease.wait();
      std::fill(in.begin(), in.end(), -1.F);
      CHECK(out == std::vector<float>{0, 0, 0, 1, 1, 1, 2, 2, 2});
      all.barrier();
    }
  });
}

TEST_CASE("a thread rank that throws frees those that wait in a collective, in a receive, in a send and between") {
  const Outcome o = outcome_of(5, {}, [](Rank rank, const Communicator& all) {
    std::vector<float> x(8);
    switch (rank) {
      case 0: all.all_reduce(view(x)).wait(); break;
      case 1: std::this_thread::sleep_for(milliseconds{50}); fail<308>("rank 1 stops");
      case 2: all.receive(view(x), 1).wait(); break;
      case 3: all.send(view(x), 1).wait(); break;
      default: {
        std::this_thread::sleep_for(milliseconds{150});  // computes meanwhile
        const Lease sum = all.all_reduce(view(x));
      }
    }
  });
  CHECK(o.what[1] == "dsx-E308: rank 1 stops");
  for (const Rank r : {0, 2, 3, 4}) CHECK(o.what[r] == "dsx-E501: another rank failed: dsx-E308: rank 1: rank 1 stops");
  CHECK(o.rethrown == "dsx-E308: rank 1: rank 1 stops");
  CHECK(o.took < milliseconds{1'000});
}

TEST_CASE("what isn't an Error is named with its rank, and a test's own exception stays itself") {
  const Outcome o = outcome_of(2, {}, [](Rank rank, const Communicator&) {
    if (rank == 1) throw std::length_error{"too long"};
  });
  CHECK(o.rethrown == "dsx-E501: rank 1 failed: too long");
  CHECK_THROWS_AS(run_threads(2, [](std::shared_ptr<Transport>) { throw 7; }), int);
  CHECK_THROWS_AS(run_threads(1, [](std::shared_ptr<Transport>) { throw std::length_error{"alone"}; }), std::length_error);
}

TEST_CASE("messages of another size or element are refused on both sides") {
  const Outcome o = outcome_of(2, {}, [](Rank rank, const Communicator& all) {
    std::vector<float> x(8);
    if (rank == 0) all.send({x.data(), {6, 1}}, 1).wait();
    else all.receive({x.data(), {5, 1}}, 0).wait();
  });
  CHECK(o.all_start_with("dsx-E503: rank 0 calls send of 6 f32 to 1 over data at "));
  CHECK(o.all_contain("; rank 1 calls receive of 5 f32 from 0 over data at "));
}

TEST_CASE("ranks that wait for each other are told so at once") {
  const int line = __LINE__ + 3;
  const Outcome o = outcome_of(3, {}, [](Rank rank, const Communicator& all) {
    std::vector<float> x(8);
    if (rank == 0) all.all_reduce(view(x)).wait();
    if (rank == 1) all.receive(view(x), 0).wait();
  });
  for (const Rank r : {0, 1}) {
    CHECK(o.what[r] == "dsx-E506: no rank can go on: rank 0 waits in all_reduce of 8 f32 over data at " + at(line) +
                           "; rank 1 waits in receive of 8 f32 from 0 over data at " + at(line + 1) + "; rank 2 has ended");
  }
  CHECK(o.what[2].empty());
  CHECK(o.took < milliseconds{1'000});
}

TEST_CASE("a full ring of sends that nobody receives is seen") {
  const Outcome o = outcome_of(2, {}, [](Rank rank, const Communicator& all) {
    std::vector<float> x(4);
    std::vector<Lease> leases;
    for (int i = 0; i < 100; ++i) leases.push_back(all.send(view(x), 1 - rank));
  });
  CHECK(o.all_start_with("dsx-E506: no rank can go on"));
  CHECK(o.all_contain("rank 1 waits in send of 4 f32 to 0"));
}

TEST_CASE("a thread rank that comes too late is named with its last call") {
  std::atomic<bool> freed = false;
  const int line = __LINE__ + 4;
  const Outcome o = outcome_of(3, {milliseconds{400}}, [&](Rank rank, const Communicator& all) {
    std::vector<float> x(12);
    // All three meet once.
    all.broadcast(view(x), 0).wait();
    if (rank == 2) {
      while (!freed) std::this_thread::sleep_for(milliseconds{1});  // a long computation
      all.barrier();
    }
    try {
      all.all_reduce(view(x)).wait();
    } catch (...) {
      freed = true;
      throw;
    }
  });
  CHECK(o.all_start_with("dsx-E504: rank "));
  CHECK(o.all_contain(" waited 400 ms in all_reduce of 12 f32 over data at " + at(line + 6)));
  CHECK(o.all_contain("; rank 2 hasn't arrived: its last call was broadcast of 12 f32 from 0 over data at " + at(line)));
  CHECK(o.took >= milliseconds{400});
  CHECK(o.took < milliseconds{1'400});
}

TEST_CASE("a late receiver and a late sender are named too") {
  for (const bool sends : {true, false}) {
    std::atomic<bool> freed = false;
    const Outcome o = outcome_of(2, {milliseconds{100}}, [&](Rank rank, const Communicator& all) {
      std::vector<float> x(12);
      if (rank == 1) {
        while (!freed) std::this_thread::sleep_for(milliseconds{1});
        all.barrier();
      }
      try {
        (sends ? all.send(view(x), 1) : all.receive(view(x), 1)).wait();
      } catch (...) {
        freed = true;
        throw;
      }
    });
    CHECK(o.all_start_with(sends ? "dsx-E504: rank 0 waited 100 ms in send" : "dsx-E504: rank 0 waited 100 ms in receive"));
    CHECK(o.all_contain("; rank 1 hasn't arrived: it has called nothing"));
    CHECK(o.took < milliseconds{1'100});
  }
}

TEST_CASE("leases end while an exception unwinds, and nobody reads what has died") {
  for (int round = 0; round < 20; ++round) {
    const Outcome o = outcome_of(4, {}, [round](Rank rank, const Communicator& all) {
      Poisoned a{50'000}, b{50'000}, c{100};
      const Lease sum = all.all_reduce(a.view());  // all post this one: it is served to its end
      if (rank == Rank(round % 4)) {
        if (round % 2) std::this_thread::sleep_for(milliseconds{2});
        const Lease sent = all.send(c.view(), (rank + 1) % 4);
        const Lease taken_back = all.all_reduce(b.view());
        fail<308>("in the middle");
      }
      Lease received = all.receive(c.view(), (rank + 3) % 4);
      all.all_reduce(b.view()).wait();  // never opens
      received.wait();
    });
    CHECK(o.rethrown.starts_with("dsx-E308"));
    CHECK(o.took < milliseconds{1'000});
  }
}

TEST_CASE("a posting that was taken back opens nothing") {
  // Rank 0 fails with a posted call; its buffer is dead when rank 1 posts its own.
  std::atomic<bool> gone = false;
  std::vector<float> seen(1'000, 3.F);
  const Outcome o = outcome_of(2, {}, [&](Rank rank, const Communicator& all) {
    if (rank == 0) {
      try {
        Poisoned x{1'000};
        const Lease lease = all.all_reduce(x.view());
        throw std::runtime_error{"rank 0 gives up"};
      } catch (const std::runtime_error&) {
        gone = true;
        std::this_thread::sleep_for(milliseconds{100});
        throw;
      }
    }
    while (!gone) std::this_thread::yield();
    all.all_reduce(view(seen)).wait();
  });
  CHECK(o.what[1] == "dsx-E501: another rank failed: dsx-E501: rank 0 failed: rank 0 gives up");
  CHECK(seen == std::vector<float>(1'000, 3.F));
}

TEST_CASE("an open collective is served to its end while its owner unwinds") {
  std::vector<float> given(1'000, 2.F), seen(1'000, 1.F);
  struct Poison {
    std::vector<float>& memory;
    ~Poison() { std::fill(memory.begin(), memory.end(), -1e30F); }
  };
  bool served = false;
  const Outcome o = outcome_of(2, {}, [&](Rank rank, const Communicator& all) {
    std::vector<float> go(1);
    if (rank == 0) {
      const Poison after{given};
      const Lease lease = all.all_reduce(view(given));
      all.receive(view(go), 1).wait();  // rank 1 has posted its own by now
      throw std::runtime_error{"rank 0 gives up"};
    }
    Lease lease = all.all_reduce(view(seen)), sent = all.send(view(go), 0);
    std::this_thread::sleep_for(milliseconds{50});  // meanwhile rank 0 fails
    lease.wait();
    served = true;
    sent.wait();
  });
  CHECK(o.rethrown == "dsx-E501: rank 0 failed: rank 0 gives up");
  CHECK(served);
  CHECK(seen == std::vector<float>(1'000, 3.F));
}

TEST_CASE("a rank is freed inside an open collective that a late rank never works on") {
  std::atomic<bool> freed = false;
  const Outcome o = outcome_of(3, {milliseconds{100}}, [&](Rank rank, const Communicator& all) {
    std::vector<float> x(600);
    Lease lease = all.all_reduce(view(x));
    if (rank == 2)
      while (!freed) std::this_thread::sleep_for(milliseconds{1});
    try {
      lease.wait();
    } catch (...) {
      freed = true;
      throw;
    }
  });
  CHECK(o.all_start_with("dsx-E504"));
  CHECK(o.all_contain("rank 2 hasn't arrived"));
  CHECK(o.took < milliseconds{1'100});
}

TEST_CASE("a rank leaves an all-reduce when all have done their shares") {
  std::vector<std::vector<float>> buffers(9, std::vector<float>(999));  // outlive the ranks, whatever these do
  run_threads(3, [&](std::shared_ptr<Transport> world) {
    const Communicator all{world, Axes::data};
    for (Rank late = 0; late < 3; ++late) {
      std::vector<float>& x = buffers[3 * late + all.rank()];
      std::fill(x.begin(), x.end(), float(all.rank() + 1));
      Lease lease = all.all_reduce(view(x));
      if (all.rank() == late) std::this_thread::sleep_for(milliseconds{30});
      lease.wait();
      CHECK(std::count(x.begin(), x.end(), 6.F) == 999);
    }
  });
}

TEST_CASE("a world may be aborted from outside its ranks") {
  ThreadWorld world{2};
  std::string what;
  std::jthread rank{[&] {
    std::vector<float> x(4);
    try {
      Communicator{world.transport(0), Axes::data}.all_reduce(view(x)).wait();
    } catch (const Error& e) {
      what = e.what();
    }
  }};
  std::this_thread::sleep_for(milliseconds{20});
  world.abort("interrupted");
  rank.join();
  CHECK(what == "dsx-E501: another rank failed: interrupted");
  CHECK_THROWS_WITH_AS(Communicator(world.transport(1), Axes::data).barrier(), "dsx-E501: another rank failed: interrupted", Error);
}
