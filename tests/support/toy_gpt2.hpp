// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A tied GPT-2 of 5 units whose sizes divide by nothing, and the ragged batches that it learns from.
///
///     Weights weights{mesh, toy::make_model(), recipe};
///     toy::Feed feed{degrees, micro_batches};
///     trainer.step(feed(step, mesh.coordinate(Axes::data)));
#pragma once

#include <dsx/dsx.hpp>

namespace toy {

using namespace dsx;

/// 3 heads over 2 ranks are 2 and 1, 29 entries 15 and 14, 21 hidden channels 11 and 10.
inline constexpr Extent vocabulary = 29, length = 8, width = 12, heads = 3, hidden = 21, blocks = 3, units = blocks + 2, spare = 3;
inline constexpr Extent sequences = 8;  // of a step, in the whole world

/// Where this thread's rank notes the rows that pass its last unit; none: nowhere.
inline thread_local std::vector<RowId>* consumed = nullptr;

/// A user's layer: a parameter that nobody uses and that has fewer elements than there are ranks, and a look at what comes by.
struct Spare {
  Parameter unused{vector_parameter(spare, 1)};
  void parts(auto& visit) const { visit("unused", unused); }
  Value<Common> operator()(Value<Common> x_RC) const {
    const Rows& rows = x_RC.pass->rows(x_RC.node);
    if (consumed && rows.ids && x_RC.pass->training && !x_RC.pass->replaying()) consumed->insert(consumed->end(), rows.ids, rows.ids + rows.live);
    return x_RC;
  }
};

using Model = Sequential<Named<Embedding>, Named<Repeat<Gpt2Block>>, Named<Chain<Named<Spare>, Named<LayerNorm>, Named<Head>>>>;

inline Model make_model(double dropout = 0.1) {
  const LayerNorm norm{width};
  const Gpt2Block block{norm, CausalAttention{width, heads, default_deviation, dropout}, norm, Mlp{width, hidden}, dropout};
  return Model{Named{"embedding", Embedding{vocabulary, length, width, dropout, "token_table"}}, Named{"blocks", Repeat{blocks, block}},
               Named{"final", Chain{Named{"spare", Spare{}}, Named{"norm", norm}, Named{"head", Head{vocabulary, width, "token_table"}}}}};
}

/// The sequences of a step: whole in even steps, ragged in odd ones, there down to a row without any target.
struct Sample {
  std::vector<int> ids{}, targets{};
  RowId first_row = 0;
};
inline std::vector<Sample> samples_of(Extent step) {
  std::vector<Sample> all(sequences);
  for (Extent s = 0; s < sequences; ++s) {
    Sample& sample = all[s];
    const Extent rows = step % 2 == 0 ? length : 1 + (5 * s + step) % length;
    sample.first_row = s * length;
    for (Extent t = 0; t < rows; ++t) {
      const float u = uniform({.seed = 77, .step = std::uint32_t(step)}, s, std::uint32_t(t));
      sample.ids.push_back(t == 0 ? int(u * float(vocabulary)) : (3 * sample.ids[t - 1] + 7 + int(u * 3)) % int(vocabulary));
      if (t > 0) sample.targets.push_back(sample.ids[t]);
    }
    sample.targets.push_back(-1);
    if ((s + step) % 3 == 0) sample.targets[rows / 2] = -1;  // the counts of ranks differ in whole steps too
  }
  return all;
}

/// Shares a step's sequences out over data ranks and micro-batches.
struct Feed {
  Extent data = 1, micro_batches = 1;

  Extent rows() const { return length * ((sequences + data * micro_batches - 1) / (data * micro_batches)); }
  bool even() const { return sequences % (data * micro_batches) == 0; }
  std::vector<MicroBatch> operator()(Extent step, Extent data_rank) const {
    const auto samples = samples_of(step);
    std::vector<MicroBatch> all(micro_batches);
    for (Extent m = 0; m < micro_batches; ++m) {
      const Range part = share({0, sequences}, data * micro_batches, m * data + data_rank);
      for (Extent s = part.begin; s < part.end; ++s) all[m].add(samples[s].ids, samples[s].targets, samples[s].first_row);
    }
    return all;
  }
};

}  // namespace toy
