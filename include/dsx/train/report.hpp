// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a rank of a run needs, in words: bytes by category, FLOPs and traffic of a step. Of a dry run it is the plan.
///
///     const Traffic step = session.traffic;              // of a dry session whose trainer has been made
///     std::puts(describe(trainer, step).c_str());
#pragma once

#include <dsx/comm/traffic.hpp>
#include <dsx/place/memory.hpp>

#include <string>

namespace dsx {

struct RankReport {
  Extent rank = 0, ranks = 1, parameters = 0;  // parameters: of the whole model
  const Memory* memory = nullptr;
  double flops = 0;                            // a step on this rank
  const Traffic* traffic = nullptr;            // of one step
};
std::string to_text(const RankReport& report);

/// `step`: the traffic of one step, as a dry session has counted it when its trainer is made.
template <class Trainer>
std::string describe(const Trainer& trainer, const Traffic& step) {
  const auto& session = trainer.mesh().session();
  return to_text({session.rank(), session.ranks(), trainer.weights().parameters(), &session.memory, trainer.flops(), &step});
}

}  // namespace dsx
