// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What is true of all pairs of policies: each meets in a cell or is refused with a number, a reason and a way out; the page says so.
// sources: support/matrix_cells.cpp
// needs: dsx_policies
// timeout: 600
#include "io/io_support.hpp"
#include "support/matrix.hpp"
#include "support/matrix_page.hpp"

#include <dsx/io/atomic_file.hpp>
#include <dsx/recipes.hpp>

#include <doctest/doctest.h>

#include <cctype>

using namespace matrix;

TEST_CASE("each listed policy names its slot, and command lines have a recipe of its name in that slot") {
  for (const Factor& s : slots()) {
    CHECK_MESSAGE(s.identity() < s.choices.size(), s.name);
    for (const Choice& c : s.choices) {
      if (!c.tag.id) continue;
      CHECK_MESSAGE(s.name == c.tag.slot, c.header << ": " << c.spelling << " is no policy of the slot " << s.name);
      const bool named = std::any_of(std::begin(recipe_names), std::end(recipe_names), [&](const RecipeName& r) {
        return s.name == r.tag.slot && std::ranges::equal(r.name, c.name, {}, {}, [](unsigned char letter) { return char(std::tolower(letter)); });
      });
      CHECK_MESSAGE(named, c.header << ": no recipe of the slot " << s.name << " is called " << c.name);
    }
  }
}

TEST_CASE("each pair of policies meets in a cell or is refused, on meshes where each policy has something to do") {
  const Matrix& m = whole();
  std::set<Pair> met;
  for (Extent i = 0; i < m.cells.rows.size(); ++i) {
    const Row& row = m.cells.rows[i];
    const Setup setup = setup_of(row);
    CHECK((i < m.exact) == (setup.rounding == Rounding::none));
    CHECK(setup.degrees.data >= 2);
    for (Extent a = 0; a < row.size(); ++a)
      for (Extent b = a + 1; b < row.size(); ++b) met.insert({a, row[a], b, row[b]});
  }
  const auto& all = slots();
  Extent exact = 0;
  for (Extent a = 0; a + 1 < all.size(); ++a)
    for (Extent b = a + 1; b + 1 < all.size(); ++b)
      for (Extent i = 0; i < all[a].choices.size(); ++i)
        for (Extent j = 0; j < all[b].choices.size(); ++j) {
          const Pair p{a, i, b, j};
          CHECK_MESSAGE(met.contains(p) != m.refused.contains(p), name_of(a, i) << " beside " << name_of(b, j));
          exact += all[a].choices[i].rounding == Rounding::none && all[b].choices[j].rounding == Rounding::none && met.contains(p);
        }
  MESSAGE(m.cells.rows.size() << " cells, of which " << m.exact << " in double hold " << exact << " pairs");
}

TEST_CASE("a refused pair has a number, a reason and a way out, whatever the order") {
  for (const auto& [p, refusal] : whole().refused) {
    if (p.b + 1 == slots().size()) continue;  // a mesh
    INFO(name_of(p.a, p.i), " beside ", name_of(p.b, p.j), ": ", refusal.text);
    CHECK(refusal.text.starts_with(concat("dsx-E", refusal.number, ": ")));
    CHECK(refusal.text.find("; ") != std::string::npos);  // a reason; what to do instead
    CHECK(read_file(DSX_SOURCE_DIR "/docs/errors.md").find(concat("dsx-E", refusal.number)) != std::string::npos);
  }
}

TEST_CASE("a pair that excludes itself does not compile, in either order") {
  const test::TemporaryFolder folder;
  Extent files = 0;
  for (const auto& [p, refusal] : whole().refused) {
    const Choice &first = slots()[p.a].choices[p.i], &second = slots()[p.b].choices[p.j];
    if (refusal.number != 107 || !first.tag.id || !second.tag.id) continue;
    for (const auto& [a, b] : {std::pair{first, second}, std::pair{second, first}}) {
      const auto file = folder / concat("pair_", files++, ".cpp");
      write_file(file, compile_fail_source(a, b));
      const std::string log = (folder / "log").string();
      const int status = std::system(
          concat("python3 " DSX_SOURCE_DIR "/tests/compile_fail/run.py " DSX_BINARY_DIR "/tests/toolchain.json ", file.string(), " > ", log, " 2>&1")
              .c_str());
      CHECK_MESSAGE(status == 0, a.spelling << ", " << b.spelling << ": " << read_file(log));
    }
  }
  MESSAGE(files << " recipes of types that don't compile");
}

TEST_CASE("the page of pairs says what the policies say") {
  const std::filesystem::path file = DSX_SOURCE_DIR "/docs/support_matrix.md";
  const std::string page = with_tables(read_file(file), tables(whole()));
  if (std::getenv("DSX_WRITE_PAGES")) write_file(file, page);
  CHECK_MESSAGE(page == read_file(file), "docs/support_matrix.md is stale; scripts/support_matrix writes it anew");
}
