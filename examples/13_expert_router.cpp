// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A router of one's own: a token's expert follows from its number alone (hash layers, Roller et al. 2021).
// run:
// expect: tokens by hash: loss \d+\.\d+ -> 0\.\d+
// expect: it keeps the laws
#include <laws/expert_router_laws.hpp>

/// Writes a router's three tables for x's rows, which may be some of the micro-batch's. Nothing of them has a gradient.
struct HashTokens : dsx::Operation {
  static constexpr const char* name = "hash_tokens";
  dsx::Node x, chosen, weights, counts;
  void forward(dsx::Pass& p) const {
    p.launch([](const dsx::Batch& batch, const dsx::Rows& rows, dsx::View chosen, dsx::View weights, dsx::View counts) {
      std::fill_n(counts.pointer<int>(), counts.size(), 0);
      for (dsx::Extent t = 0; t < rows.live; ++t) {
        const auto token = batch.ids[std::find(batch.row_ids.begin(), batch.row_ids.end(), rows.ids[t]) - batch.row_ids.begin()];
        const int expert = int(dsx::philox({std::uint32_t(token), 0, 0, 0}, {0, 0})[0] % counts.size());
        chosen.at<int>(t, 0) = expert, weights.at<float>(t, 0) = 1, ++counts.at<int>(0, dsx::Extent(expert));
      }
    }, p.batch(), p.rows(x), p.view(chosen), p.view(weights), p.view(counts));
  }
  void towards_inputs(dsx::Pass&) const {}
};

struct HashRouter {
  dsx::Extent experts;
  void parts(auto&) const {}
  dsx::Routes operator()(dsx::Value<dsx::Common> x_RC) const {
    dsx::Pass& p = *x_RC.pass;
    const dsx::Rows rows = p.rows(x_RC.node);
    const dsx::Routes routes{.experts = experts, .capacity = rows.bound, .chosen = p.make(rows, 1, dsx::Element::i32),
                             .weights = p.make(rows, 1, dsx::Element::f32), .counts = p.make({.bound = 1, .live = 1}, experts, dsx::Element::i32)};
    p.run(HashTokens{{}, x_RC.node, routes.chosen, routes.weights, routes.counts});
    return routes;
  }
};
static_assert(dsx::ExpertRouter<HashRouter>);

int main() {
  dsx::launch_threads(2, [](dsx::Session& session) {
    const dsx::Mesh mesh{session, {.tensor = 2, .token_split = true}};
    const dsx::Residual moe{dsx::LayerNorm{32}, dsx::Experts{4, HashRouter{4}, dsx::Mlp{32, 64}}};
    dsx::Weights weights{mesh, dsx::Sequential{dsx::Embedding{64, 16, 32}, moe, dsx::Chain{dsx::LayerNorm{32}, dsx::Head{64, 32}}}, dsx::Recipe{}};
    dsx::Trainer trainer{weights, dsx::AdamW{.rate = 1e-2}, dsx::TokenLoss{}, {.rows = 8 * 16}};
    double first = 0, last = 0;
    for (int step = 0; step < 60; ++step) {
      dsx::MicroBatch batch;
      for (int s = 0; s < 8; ++s) {
        std::vector<int> ids(16), targets(16);
        for (int t = 0; t < 16; ++t) ids[t] = (11 * s + 5 * t + step) % 64, targets[t] = (ids[t] * ids[t] + 5) % 64;
        batch.add(ids, targets, dsx::RowId(s) * 16);
      }
      last = trainer.step({&batch, 1}).loss, first = step == 0 ? last : first;
    }
    if (session.is_root()) std::printf("tokens by hash: loss %.2f -> %.3f\n", first, last);
  });
  const std::string broken = laws::broken([] { laws::expert_router(HashRouter{4}); });
  std::puts(broken.empty() ? "it keeps the laws of expert routers" : broken.c_str());
}
