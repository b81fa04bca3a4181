// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Notes the first SIGINT or SIGTERM; the default action is back in place for the second.
#include <dsx/train/signals.hpp>

#include <csignal>
#include <initializer_list>

namespace dsx {
namespace {

volatile std::sig_atomic_t caught = 0;

void note(int signal) {
  caught = signal;
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

}  // namespace

StopSignals::StopSignals() {
  caught = 0;
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction action {};
    action.sa_handler = note;
    action.sa_flags = SA_RESTART;
    sigaction(signal, &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

int StopSignals::asked() noexcept { return caught; }

}  // namespace dsx
