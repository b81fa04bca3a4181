// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// An offload policy of one's own: the optimizer's state of large matrices rests on the host, all else on the device.
// run:
// expect: state of a rank: on the device \d+ bytes, on the host \d+ bytes
// expect: the same loss to the last bit
// expect: it keeps the laws
#include <laws/offload_laws.hpp>

struct LargeStateOnHost {
  using Slot = dsx::OffloadSlot;
  dsx::Extent least = 2'000;  // elements
  constexpr dsx::Tier rests(dsx::Kind kind, const dsx::ParameterInfo& info) const {  // of one class of parameters in one unit
    return kind == dsx::Kind::state && info.whole.size() >= least ? dsx::Tier::host : dsx::Tier::device;
  }
};
static_assert(dsx::OffloadPolicy<LargeStateOnHost>);

struct Outcome {
  double loss = 0;
  dsx::Extent on_device = 0, on_host = 0;
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
    const auto peak = [&](dsx::Tier tier) { return session.memory.tally(dsx::Category::state, tier).peak; };
    if (session.is_root()) outcome = {loss, peak(dsx::Tier::device), peak(dsx::Tier::host)};
  });
  return outcome;
}

int main() {
  const Outcome resident = train(dsx::Recipe{dsx::ZeRO<2>{}}), mine = train(dsx::Recipe{dsx::ZeRO<2>{}, LargeStateOnHost{}});
  std::printf("state of a rank: on the device %zu bytes, on the host %zu bytes\n", mine.on_device, mine.on_host);
  std::puts(mine.loss == resident.loss && mine.on_host > 0 ? "the same loss to the last bit" : "another loss");
  const std::string broken = laws::broken([] { laws::offload(LargeStateOnHost{.least = 300}); });
  std::puts(broken.empty() ? "it keeps the laws of offload" : broken.c_str());
}
