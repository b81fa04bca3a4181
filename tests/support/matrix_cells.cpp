// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Runs cells of the matrix. Every choice is made at run time, so one model and one trainer are compiled for all of them:
///
///     matrix::judge(matrix::setup_of(row));    // "" or what is wrong
#include "matrix.hpp"
#include "matrix_model.hpp"

namespace matrix {

namespace {

Run run_of(const Setup& s) {
  const Cell c = cell_of(s);
  return train(c, s.recipe(), toy::steps, learner_of(s));
}

/// The same on one rank: what is exact is compared with double, a precision with itself, a packed wire with full precision.
const Run& one_rank(const Setup& s) {
  static std::map<std::tuple<std::string, std::string, PolicyId>, Run> runs;
  const AnyPrecision precision = s.precision();
  const auto [found, is_new] = runs.try_emplace({s.router_name, s.optimizer_name, precision.tag().id});
  if (is_new) {
    Setup one = s;
    one.policies = {}, one.degrees = {};
    std::get<AnyPrecision>(one.policies) = precision;
    found->second = run_of(one);
  }
  return found->second;
}

std::string against_one_rank(const Setup& s, const Run& run) {
  const Run& one = one_rank(s);
  if (!one.complaints.empty()) return concat("one rank", toy::text_of(one.complaints));
  const auto verdict = [&](double off, double bound) { return off <= bound ? "" : concat(s.name, " lies ", off, " from one rank, at most ", bound); };
  if (s.rounding == Rounding::none) return verdict(toy::distance(run, one), 1e-12);
  double losses = run.losses.size() == one.losses.size() ? 0 : 1e30;
  for (Extent i = 0; i < run.losses.size(); ++i) losses = std::max(losses, std::abs(run.losses[i] / one.losses[i] - 1));
  if (s.rounding == Rounding::packed) return verdict(losses, 5e-2);
  // Rounding may send a token to another expert, and Muon makes whole steps of what a router's small gradient rounds to.
  if (s.precision().elements() == Fp32{}.elements()) return verdict(toy::distance(run, one, false), s.router.dense() ? 1e-5 : 5e-5);
  return verdict(losses, s.router.dense() ? 2e-3 : 2e-2);
}

}  // namespace

std::optional<Refusal> refusal_of(const Setup& s) {
  try {
    const Cell c = cell_of(s);
    const Learner<MatrixModel> learner = learner_of(s);
    Session session = Session::dry(0, s.degrees.ranks());
    const Mesh mesh{session, s.degrees};
    Weights weights{mesh, learner.model, s.recipe()};
    const Trainer trainer{weights, learner.optimizer, TokenLoss{.chunk = 10}, options_of(c)};
  } catch (const Error& e) {
    if (const int kind = e.number() / 100; kind != 1 && kind != 3) throw;
    return Refusal{e.number(), e.what()};
  }
  return {};
}

std::string judge(const Setup& s) {
  const Run run = run_of(s);
  return run.complaints.empty() ? against_one_rank(s, run) : concat(s.name, toy::text_of(run.complaints));
}
std::string judge(const Setup& s, Session& session) {
  Run run;
  toy::Complaints complaints;
  train_rank(session, cell_of(s), s.recipe(), toy::steps, run, complaints, nullptr, learner_of(s));
  if (const auto wrong = complaints.take(); !wrong.empty()) return concat(s.name, toy::text_of(wrong));
  return session.is_root() ? against_one_rank(s, run) : "";
}

}  // namespace matrix
