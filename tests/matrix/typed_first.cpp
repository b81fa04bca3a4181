// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Each policy's type stands in a recipe of types, which has the bits of the same policies chosen at run time: the first half of them.
// labels: traj
// sources: support/matrix_cells.cpp
// needs: dsx_policies
#include "support/typed_cells.hpp"

using namespace matrix;

TEST_CASE("each policy as a type has the bits of the same policy chosen at run time, the first half") { typed_cells<0, typed_rows / 2>(); }
