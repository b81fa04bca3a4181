// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Ranks are threads of one process: they form a mesh, add up and gather along its axes, and fail together.
// run:
// expect: sum along data on rank 5: 1 \+ 3 \+ 5 \+ 7 = 16
// expect: gathered along tensor on rank 5: 4 5
// expect: dsx-E502: .*05_ranks_as_threads
#include <dsx/comm/mesh.hpp>

#include <cstdio>

int main() {
  dsx::launch_threads(8, [](dsx::Session& session) {
    const dsx::Mesh mesh{session, {.data = 4, .tensor = 2}};  // tensor ranks are neighbours

    float mine = float(session.rank());
    dsx::Lease lent = mesh.along(dsx::Axes::data).all_reduce({&mine, {1, 1}, dsx::Element::f32});
    // ... other work; until the lease ends the buffer belongs to the collective
    lent.wait();
    if (session.rank() == 5) std::printf("sum along data on rank 5: 1 + 3 + 5 + 7 = %g\n", double(mine));

    float part = float(session.rank()), both[2];
    mesh.along(dsx::Axes::tensor).all_gather({&part, {1, 1}, dsx::Element::f32}, {both, {2, 1}, dsx::Element::f32}).wait();
    if (session.rank() == 5) std::printf("gathered along tensor on rank 5: %g %g\n", double(both[0]), double(both[1]));
  });

  try {  // ranks that call different collectives are told so at once, with both lines
    dsx::launch_threads(2, [](dsx::Session& session) {
      const dsx::Mesh mesh{session, {.data = 2}};
      float x = 1;
      const dsx::View view{&x, {1, 1}, dsx::Element::f32};
      if (session.is_root()) mesh.along(dsx::Axes::data).all_reduce(view).wait();
      else mesh.along(dsx::Axes::data).broadcast(view, 0).wait();
    });
  } catch (const dsx::Error& e) {
    std::printf("%s\n", e.what());
  }
}
