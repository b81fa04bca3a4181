// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The second half of a run, in a process of its own.
///
///     resumed_half FROM TO 6 12      loads the checkpoint FROM, takes steps 6 to 12, saves the checkpoint TO
#include "support/resumed.hpp"

#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const toy::Run run = toy::stretch(toy::far_cell(), {dsx::Extent(std::atoi(argv[3])), dsx::Extent(std::atoi(argv[4]))}, argv[1], argv[2]);
  std::printf("%s\n", toy::text_of(run.complaints).c_str());
  return run.complaints.empty() ? 0 : 1;
}
