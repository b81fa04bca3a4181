// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a rank of a run needs, in words: bytes by category, FLOPs and traffic of a step. Of a dry run it is the plan.
///
///     std::puts(describe(trainer).c_str());
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

/// Of a trainer whose session has counted one step: after its construction, if the session is dry.
template <class Trainer>
std::string describe(const Trainer& trainer) {
  const auto& session = trainer.mesh().session();
  return to_text({session.rank(), session.ranks(), trainer.weights().parameters(), &session.memory, trainer.flops(), &session.traffic});
}

}  // namespace dsx
