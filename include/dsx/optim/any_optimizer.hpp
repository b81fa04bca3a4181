// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Any of dsx's optimizers, chosen at run time, with a rate that a schedule moves.
///
///     AnyOptimizer optimizer{AdamW{.rate = 1e-3}};
///     optimizer.scale_rate(schedule.factor(step));    // of the rate that it was made with
#pragma once

#include <dsx/optim/adamw.hpp>
#include <dsx/optim/muon.hpp>
#include <dsx/optim/one_bit_adam.hpp>
#include <dsx/optim/sgd.hpp>

#include <variant>

namespace dsx {

class AnyOptimizer {
 public:
  template <Optimizer O>
    requires(!std::same_as<O, AnyOptimizer>)
  AnyOptimizer(O optimizer) : full_{optimizer}, now_{optimizer} {}

  std::vector<StateSpec> states(const ParameterInfo& info) const {
    return std::visit([&](const auto& o) { return o.states(info); }, now_);
  }
  void update(Bundle& b, const Verdict& v, const Mesh& mesh) const {
    std::visit([&](const auto& o) { o.update(b, v, mesh); }, now_);
  }
  std::unique_ptr<Reduction> reduction(const Bundle& b, const Mesh& mesh) const {
    return std::visit([&](const auto& o) { return reduction_of(o, b, mesh); }, now_);
  }
  Extent exact_steps() const {
    return std::visit([](const auto& o) { return exact_steps_of(o); }, now_);
  }
  /// All rates become `factor` times those of the beginning.
  void scale_rate(double factor) {
    now_ = full_;
    std::visit([&](auto& o) {
      o.rate *= factor;
      if constexpr (requires { o.others; }) o.others.rate *= factor;
    }, now_);
  }
  double rate() const {
    return std::visit([](const auto& o) { return o.rate; }, now_);
  }

 private:
  std::variant<AdamW, Sgd, Muon, OneBitAdam> full_, now_;
};
static_assert(Optimizer<AnyOptimizer>);

/// What command lines choose: adamw, sgd, muon or onebit_adam; dsx-E108 for another name. Under muon `rate` is the matrices'; vectors and
/// tables take AdamW's with a twentieth of it. `freeze_step` is 1-bit Adam's.
inline AnyOptimizer optimizer_named(std::string_view name, double rate, double decay, Extent freeze_step = 0) {
  if (name == "adamw") return AdamW{.rate = rate, .decay = decay};
  if (name == "sgd") return Sgd{.rate = rate, .momentum = 0.9, .decay = decay};
  if (name == "muon") return Muon{.rate = rate, .decay = decay, .others = {.rate = rate / 20, .decay = decay}};
  if (name == "onebit_adam") return OneBitAdam{.rate = rate, .decay = decay, .freeze_step = freeze_step};
  fail<108>("no optimizer is called \"", name, "\"; there are adamw, sgd, muon and onebit_adam");
}

/// A rate to begin a search with.
inline double usual_rate(std::string_view name) { return name == "muon" ? 0.02 : name == "sgd" ? 0.1 : 1e-3; }

}  // namespace dsx
