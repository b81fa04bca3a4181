// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Prints the tables of all pairs, by what recipes refuse, and each cell of the covering array; then writes the programs of the pairs that
/// may not compile into a folder. tests/matrix/new_header.py compiles it for a tree with one policy more.
///
///     list_pairs folder
#include "matrix_page.hpp"

#include <cstdio>
#include <fstream>

int main(int, char** argv) {
  using namespace matrix;
  const Matrix all = matrix_by(refusal_of_recipe);
  std::puts(tables(all).c_str());
  for (const Row& row : all.cells.rows) std::printf("cell: %s\n", setup_of(row).name.c_str());
  for (const auto& [p, refusal] : all.refused) {
    const Choice &first = slots()[p.a].choices[p.i], &second = slots()[p.b].choices[p.j];
    for (const auto& [a, b] : {std::pair{first, second}, std::pair{second, first}})
      std::ofstream{concat(argv[1], "/", a.name, "_", b.name, ".cpp")} << compile_fail_source(a, b);
  }
}
