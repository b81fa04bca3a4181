// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The tables of docs/support_matrix.md, and the program of a pair that may not compile.
///
///     std::string page = matrix::with_tables(old_page, matrix::tables(matrix::whole()));
#pragma once

#include "matrix.hpp"

namespace matrix {

inline std::string tables(const Matrix& m) {
  const auto& all = slots();
  const Extent policies = all.size() - 1;  // the last is the mesh
  Extent number = 0, together = 0, refused = 0;
  for (Extent s = 0; s < policies; ++s) number += all[s].choices.size();
  for (const Pair& p : m.cells.pairs) together += p.b < policies;
  for (const auto& [p, refusal] : m.refused) refused += p.b < policies;
  const auto refuses = [&](Extent a, Extent i, Extent b, Extent j) { return m.refused.contains(a < b ? Pair{a, i, b, j} : Pair{b, j, a, i}); };
  const auto code = [](const std::string& text) { return concat("`", text, "`"); };

  std::string text = concat(number, " policies of ", policies, " slots make ", together + refused, " pairs: ", together, " stand in the ",
                            m.cells.rows.size(), " cells of the covering array (", m.exact, " of them in double), ", refused, " are refused.\n\n");
  std::string rule = "| --- |", head = "| policy |";
  for (Extent s = 0; s < policies; ++s) head += concat(" ", all[s].name, " |"), rule += " --- |";
  text += head + "\n" + rule + "\n";
  for (Extent a = 0; a < policies; ++a)
    for (Extent i = 0; i < all[a].choices.size(); ++i) {
      text += concat("| ", code(all[a].choices[i].name), " |");
      for (Extent b = 0; b < policies; ++b) {
        std::string without;
        for (Extent j = 0; b != a && j < all[b].choices.size(); ++j)
          if (refuses(a, i, b, j)) without += concat(without.empty() ? "without " : ", ", code(name_of(b, j)));
        text += concat(" ", a == b ? "" : without.empty() ? "all" : without, " |");
      }
      text += "\n";
    }
  const auto list = [&](const char* title, bool mesh) {
    std::string rows;
    for (const auto& [p, refusal] : m.refused)
      if ((p.b == policies) == mesh) rows += concat("| ", code(name_of(p.a, p.i)), " | ", code(name_of(p.b, p.j)), " | ", refusal.text, " |\n");
    if (!rows.empty()) text += concat("\n", title, "\n\n| | | refused with |\n| --- | --- | --- |\n", rows);
  };
  list("Pairs that are refused:", false);
  list("Of the meshes that cells run on, a policy refuses:", true);
  text += "\nHow a test cell spells each policy:\n\n| policy | in C++ | from |\n| --- | --- | --- |\n";
  for (Extent s = 0; s < policies; ++s)
    for (const Choice& c : all[s].choices) text += concat("| ", code(c.name), " | ", code(c.spelling), " | ", code(c.header), " |\n");
  return text;
}

/// A page whose part between the two marks is replaced.
inline std::string with_tables(const std::string& page, const std::string& text) {
  const std::string begin = "<!-- tables -->\n", end = "<!-- /tables -->\n";
  const auto at = page.find(begin), to = page.find(end);
  if (at == page.npos || to == page.npos) return "a page without marks";
  return page.substr(0, at + begin.size()) + text + page.substr(to);
}

inline std::string compile_fail_source(const Choice& a, const Choice& b) {
  return concat("// error: dsx-E107\n#include <", a.header, ">\n#include <", b.header,
                ">\n#include <dsx/policy/recipe.hpp>\n\nusing namespace dsx;\n\n", "#ifdef FIXED\ninline const Recipe recipe{", a.spelling,
                "};\n#else\ninline const Recipe recipe{", a.spelling, ", ", b.spelling, "};\n#endif\n");
}

}  // namespace matrix
