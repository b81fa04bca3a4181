// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A pipeline schedule of one's own: GPipe in waves, so that no more micro-batches than a wave are under way, however many a step has.
// run:
// expect: under way at once: GPipe 6, waves 2
// expect: the same loss to the last bit
// expect: it keeps the laws
#include <laws/schedule_laws.hpp>

#include <dsx/dsx.hpp>

struct Waves {
  using Slot = dsx::ScheduleSlot;
  dsx::Extent size = 2;
  constexpr dsx::Program program(dsx::Extent, dsx::Extent, dsx::Extent micro_batches) const {  // of a stage: every one the same
    dsx::Program p;
    for (dsx::Extent first = 0; first < micro_batches; first += size) {
      const dsx::Extent last = std::min(first + size, micro_batches);
      for (dsx::Extent m = first; m < last; ++m) p.forward(m);
      for (dsx::Extent m = first; m < last; ++m) p.backward(m);
    }
    return p;
  }
};
static_assert(dsx::PipelineSchedule<Waves> && dsx::check(Waves{2}, 4, 7).correct());  // no deadlock: checked by the compiler, and at start

constexpr dsx::Extent micro_batches = 6;

double train(auto schedule) {
  double loss = 0;
  dsx::launch_threads(2, [&](dsx::Session& session) {
    const dsx::Mesh mesh{session, {.pipe = 2}};
    dsx::Weights weights{mesh, dsx::make_gpt2({.vocabulary = 64, .positions = 16, .width = 32, .heads = 4, .layers = 2}), dsx::Recipe{schedule}};
    dsx::Trainer trainer{weights, dsx::AdamW{.rate = 5e-3}, dsx::TokenLoss{}, {.micro_batches = micro_batches, .rows = 16}};
    for (int step = 0; step < 10; ++step) {
      std::vector<dsx::MicroBatch> batches(micro_batches);
      for (int m = 0; m < int(micro_batches); ++m) {
        std::vector<int> ids(16), targets(16);
        for (int t = 0; t < 16; ++t) ids[t] = (9 * m + step + t) % 64, targets[t] = (ids[t] + 1) % 64;
        batches[m].add(ids, targets, dsx::RowId(m) * 16);
      }
      loss = trainer.step(batches).loss;
    }
  });
  return loss;
}

int main() {
  const auto live = [](const auto& schedule) { return dsx::check(schedule, 2, micro_batches).live; };
  std::printf("under way at once: GPipe %zu, waves %zu\n", live(dsx::GPipe{}), live(Waves{}));
  std::puts(train(Waves{}) == train(dsx::GPipe{}) ? "the same loss to the last bit" : "another loss");
  const std::string broken = laws::broken([] { laws::schedule(Waves{3}, 5); });
  std::puts(broken.empty() ? "it keeps the laws of schedules" : broken.c_str());
}
