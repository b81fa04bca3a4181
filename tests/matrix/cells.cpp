// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every pair of policies that may stand beside each other stands in a cell: twenty clipped steps on 2, 4 or 8 thread ranks against one rank,
/// bytes as the dry run plans them and, where there are formulas, as those say. In how many cells: docs/support_matrix.md.
// labels: traj bytes wire
// sources: support/matrix_cells.cpp
// needs: dsx_policies
// timeout: 600
#include "support/matrix.hpp"

#include <doctest/doctest.h>

using namespace matrix;

namespace {

/// Cells are dealt out, so that cases take as long as each other.
constexpr Extent parts = 6;
void cells_of_part(Extent part) {
  const auto& rows = whole().cells.rows;
  REQUIRE(rows.size() > parts);
  for (Extent i = part; i < rows.size(); i += parts) {
    const std::string wrong = judge(setup_of(rows[i]));
    CHECK_MESSAGE(wrong.empty(), wrong);
  }
}

}  // namespace

TEST_CASE("cells of all pairs equal one rank, the first of six parts") { cells_of_part(0); }
TEST_CASE("cells of all pairs equal one rank, the second of six parts") { cells_of_part(1); }
TEST_CASE("cells of all pairs equal one rank, the third of six parts") { cells_of_part(2); }
TEST_CASE("cells of all pairs equal one rank, the fourth of six parts") { cells_of_part(3); }
TEST_CASE("cells of all pairs equal one rank, the fifth of six parts") { cells_of_part(4); }
TEST_CASE("cells of all pairs equal one rank, the last of six parts") { cells_of_part(5); }
