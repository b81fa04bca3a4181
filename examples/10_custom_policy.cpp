// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A sharding policy of one's own: small classes stay whole, large ones have their optimizer state cut. No file of dsx knows it.
// run:
// expect: it keeps the laws
// expect: state of a rank: replicated (\d+) bytes, mine (\d+) bytes
// expect: the same loss to the last bit
#include <laws/sharding_laws.hpp>

struct LargeOnly {
  using Slot = dsx::ShardingSlot;  // what it is; a recipe holds one of each kind
  dsx::Extent least = 2'000;       // elements
  dsx::Residency residency(const dsx::ParameterInfo& info, const dsx::Mesh&) const {
    if (info.whole.size() < least) return {};
    return {.state = dsx::Axes::data};  // weights and gradients whole, state cut: each rank updates its part
  }
};
static_assert(dsx::ShardingPolicy<LargeOnly>);

struct Outcome {
  double loss = 0;
  dsx::Extent state = 0;
};

Outcome train(auto recipe) {
  Outcome outcome;
  dsx::launch_threads(2, [&](dsx::Session& session) {
    const dsx::Mesh mesh{session, {.data = 2}};
    dsx::Weights weights{mesh, dsx::make_gpt2({.vocabulary = 64, .positions = 16, .width = 32, .heads = 4, .layers = 2}), recipe};
    dsx::Trainer trainer{weights, dsx::AdamW{.rate = 5e-3}, dsx::TokenLoss{}, {.rows = 4 * 16, .clip = 1}};
    double loss = 0;
    for (int step = 0; step < 10; ++step) {
      dsx::MicroBatch batch;
      for (int s = int(session.rank()) * 4; s < int(session.rank()) * 4 + 4; ++s) {
        std::vector<int> ids(16), targets(16);
        for (int t = 0; t < 16; ++t) ids[t] = (9 * s + step + t) % 64, targets[t] = (ids[t] + 1) % 64;
        batch.add(ids, targets, dsx::RowId(s) * 16);
      }
      loss = trainer.step({&batch, 1}).loss;
    }
    if (session.is_root()) outcome = {loss, session.memory.tally(dsx::Category::state).peak};
  });
  return outcome;
}

int main() {
  const Outcome whole = train(dsx::Recipe{}), mine = train(dsx::Recipe{LargeOnly{}, dsx::RecomputeUnits{}});
  std::printf("state of a rank: replicated %zu bytes, mine %zu bytes\n", whole.state, mine.state);
  std::printf("%s\n", whole.loss == mine.loss ? "the same loss to the last bit" : "another loss");
  const std::string broken = laws::broken([] { laws::sharding(LargeOnly{.least = 100}); });
  std::puts(broken.empty() ? "it keeps the laws of sharding" : broken.c_str());
}
