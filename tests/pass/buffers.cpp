// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Buffers: each micro-batch adds to them, the commit merges them over data ranks, by sum or by maximum.
#include "support/workbench.hpp"

#include <dsx/dsx.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

/// Counts the rows it has seen and keeps the largest token id, in two buffers.
struct CountRows : Operation {
  static constexpr const char* name = "count_rows";
  static constexpr OperationClass operation_class = OperationClass::elementwise;
  Node x, y;
  Slot seen, largest;
  auto results() const { return std::array{y}; }
  void forward(Pass& p) const {
    p.launch(kernels::copy, p.view(x), p.view(y));
    const Grad count = p.buffer_update(seen), top = p.buffer_update(largest);
    p.launch([&] {
      const auto ids = p.batch().ids;
      float& rows = count.view.at<float>(0, 0);
      rows = (count.accumulate ? rows : 0) + float(ids.size());
      float& id = top.view.at<float>(0, 0);
      id = std::max(top.accumulate ? id : -1, ids.empty() ? -1 : float(*std::max_element(ids.begin(), ids.end())));
    });
  }
  void towards_inputs(Pass& p) const { p.launch(kernels::pass_on, p.incoming(y), p.gradient(x)); }
};
struct Counting {
  Buffer seen{.size = 1, .start = 100}, largest{.size = 1, .merge = Buffer::Merge::max, .start = -7}, unused{.size = 2, .start = 5};
  void parts(auto& visit) const { visit("seen", seen), visit("largest", largest), visit("unused", unused); }
  Value<Common> operator()(Value<Common> x) const {
    const auto y = x.pass->make<Common>(x.pass->shape(x.node).columns);
    x.pass->run(CountRows{{}, x.node, y.node, seen.slot, largest.slot});
    return gelu(y);
  }
};

using Model = Sequential<Named<Embedding>, Named<Counting>, Named<Head>>;
Model make_model() { return Model{Named{"embedding", Embedding{16, 8, 4}}, Named{"counting", Counting{}}, Named{"head", Head{16, 4}}}; }

MicroBatch batch_of(std::vector<int> ids) {
  MicroBatch batch;
  batch.add(ids, ids, 0);
  return batch;
}

/// Rows and largest id after each of two steps of two micro-batches, on every rank.
using Seen = std::vector<float>;
Seen two_steps(const Mesh& mesh, AnyRecompute recompute) {
  Weights weights{mesh, make_model(), Recipe{recompute}};
  Trainer trainer{weights, Sgd{.rate = 0}, TokenLoss{}, {.micro_batches = 2, .rows = 8}};
  const bool first = mesh.coordinate(Axes::data) == 0;
  Seen seen;
  const auto note = [&] {
    seen.push_back(weights.buffer("counting.seen")[0]), seen.push_back(weights.buffer("counting.largest")[0]);
    CHECK(weights.buffer("counting.unused") == std::vector<float>{5, 5});
  };
  note();
  // Rows: 3 + 2 and 1 + 4; largest ids 9 and 4.
  trainer.step(first ? std::vector{batch_of({1, 2, 9}), batch_of({0, 3})} : std::vector{batch_of({4}), batch_of({1, 1, 1, 0})});
  note();
  Evaluator evaluator{weights, TokenLoss{}, 8};
  const MicroBatch all = batch_of({15, 15, 15});
  evaluator.loss(std::span{&all, 1});
  note();  // an evaluation counts nothing
  trainer.step(first ? std::vector{batch_of({2}), batch_of({5})} : std::vector{batch_of({12}), batch_of({3, 3})});
  note();
  return seen;
}

}  // namespace

TEST_CASE("buffers are summed or maximised over micro-batches and data ranks, and nothing is counted twice by recomputation") {
  for (const AnyRecompute& recompute : {AnyRecompute{KeepActivations{}}, AnyRecompute{RecomputeUnits{}}, AnyRecompute{RecomputeOperations{}}})
    for (const Seen& seen : test::on_ranks({.data = 2}, [&](const Mesh& mesh) { return two_steps(mesh, recompute); }))
      CHECK(seen == Seen{100, -7, 110, 9, 110, 9, 115, 12});
}

TEST_CASE("a buffer is assigned whole and by its path: dsx-E406, dsx-E407") {
  test::on_one_rank([](const Mesh& mesh) {
    Weights weights{mesh, make_model(), Recipe{}};
    const std::vector<float> two{3, 4};
    weights.assign_buffer("counting.unused", std::span{two});
    CHECK(weights.buffer("counting.unused") == two);
    CHECK(weights.buffers().size() == 3);
    CHECK_THROWS_WITH_AS(weights.assign_buffer("counting.seen", std::span{two}), "dsx-E407: counting.seen has 1 elements, given 2", Error);
    CHECK_THROWS_AS(weights.buffer("counting.lost"), Error);
    return 0;
  });
}
