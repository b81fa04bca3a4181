// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// An operation of one's own: forward and pullback on views, recorded like dsx's; checked against differences.
// run:
// expect: pullback and difference agree to [0-9.]+e-(0[7-9]|1\d)
#include <dsx/dsx.hpp>

/// y = x / (root of the mean square of its row): trivially copyable, it holds node ids, not pointers.
struct UnitRows : dsx::Operation {
  static constexpr const char* name = "unit_rows";
  dsx::Node x, y;
  dsx::Cost cost(dsx::Pass& p) const { return {.flops = 4.0 * double(p.shape(x).size())}; }
  void forward(dsx::Pass& p) const { p.launch(kernel, p.view(x), p.view(y)); }
  void towards_inputs(dsx::Pass& p) const { p.launch(pullback, p.view(x), p.incoming(y), p.gradient(x)); }

  static void kernel(dsx::View x, dsx::View y) { pullback(x, {}, {y, false}); }
  /// Without dy: out = x s, where s = 1 / root of the mean square. With it: out = or += s (dy - x s^2 mean(x dy)).
  static void pullback(dsx::View x, dsx::View dy, dsx::Grad out) {
    const auto run = [&]<class T>(T) {
      const dsx::Extent columns = x.shape.columns;
      for (dsx::Extent r = 0; r < x.shape.rows; ++r) {
        T square = 0, product = 0;
        for (dsx::Extent c = 0; c < columns; ++c) square += x.at<T>(r, c) * x.at<T>(r, c);
        for (dsx::Extent c = 0; c < columns && dy.data; ++c) product += x.at<T>(r, c) * dy.at<T>(r, c);
        const T s = 1 / std::sqrt(square / T(columns) + T(1e-6)), mean = product / T(columns);
        for (dsx::Extent c = 0; c < columns; ++c) {
          const T value = s * (dy.data ? dy.at<T>(r, c) - x.at<T>(r, c) * s * s * mean : x.at<T>(r, c));
          out.view.at<T>(r, c) = out.accumulate ? out.view.at<T>(r, c) + value : value;
        }
      }
    };
    x.element == dsx::Element::f64 ? run(double{}) : run(float{});
  }
};
struct Unit {  // the layer around it: it takes and gives whole rows
  void parts(auto&) const {}
  dsx::Value<dsx::Common> operator()(dsx::Value<dsx::Common> x) const {
    const auto y = x.pass->make<dsx::Common>(x.pass->shape(x.node).columns);
    x.pass->run(UnitRows{{}, x.node, y.node});
    return y;
  }
};

int main() {
  dsx::Session session{dsx::self_transport()};
  const dsx::Mesh mesh{session, {}};
  dsx::Weights weights{mesh, dsx::Sequential{dsx::Embedding{8, 4, 16}, dsx::Chain{Unit{}, dsx::Head{8, 16}}}, dsx::Recipe{dsx::Fp64{}}};
  dsx::Trainer trainer{weights, dsx::Sgd{}, dsx::TokenLoss{}, {.rows = 4}};
  std::vector<dsx::MicroBatch> batch(1);
  batch[0].add(std::vector{1, 5, 2, 7}, std::vector{5, 2, 7, 0}, 0);
  const auto loss_at = [&](double shift) {
    auto table = weights.weight<double>("0.positions");
    table[3] += shift;
    weights.assign("0.positions", std::span<const double>{table});
    trainer.accumulate(batch);
    return trainer.verdict().loss;
  };
  const double up = loss_at(1e-4), down = loss_at(-2e-4), here = (loss_at(1e-4), weights.gradient<double>("0.positions")[3]);
  std::printf("pullback and difference agree to %.1e\n", std::abs((up - down) / 2e-4 - here) + 1e-12);
}
