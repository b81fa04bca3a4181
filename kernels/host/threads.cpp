// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The number of OpenMP threads, which each thread of a process chooses for itself.
#include <dsx/kernels/threads.hpp>

#if DSX_HAS_OPENMP
#include <omp.h>
#endif
#include <sched.h>

namespace dsx::kernels {

void use_threads([[maybe_unused]] Extent count) {
#if DSX_HAS_OPENMP
  omp_set_num_threads(int(std::max<Extent>(count, 1)));
#endif
}

Extent processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max<Extent>(Extent(CPU_COUNT(&set)), 1);
}

}  // namespace dsx::kernels
