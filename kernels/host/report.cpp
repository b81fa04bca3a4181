// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Reports of ranks.
#include <dsx/train/progress.hpp>
#include <dsx/train/report.hpp>

namespace dsx {

std::string to_text(const RankReport& r) {
  std::string text = concat("rank ", r.rank, " of ", r.ranks, ", a model of ", count_text(double(r.parameters)), " parameters\n");
  const auto row = [&](const std::string& name, const std::string& value, const std::string& exact) {
    const Extent wide = name.size() + value.size();
    text += concat("  ", name, std::string(wide < 50 ? 50 - wide : 1, ' '), value);
    text += exact.empty() ? "\n" : concat("  ", exact, "\n");
  };
  text += "memory at its peak\n";
  for (const Tier tier : {Tier::device, Tier::host, Tier::disk}) {
    const Extent together = r.memory->peak_bytes(tier);
    if (tier != Tier::device && together == 0) continue;
    const std::string where = tier == Tier::device ? "" : concat(" on the ", tier_names[Extent(tier)]);
    for (Extent c = 0; c < categories; ++c) {
      const Extent bytes = r.memory->tally(Category(c), tier).peak;
      if (tier == Tier::device || bytes > 0) row(concat(category_names[c], where), bytes_text(double(bytes)), concat(bytes, " bytes"));
    }
    row("together" + where, bytes_text(double(together)), concat(together, " bytes"));
  }
  text += "a step\n";
  row("computation", count_text(r.flops) + "FLOP", "");
  for (const Traffic::Row& t : r.traffic->rows())
    if (t.ranks > 1 && t.elements > 0)
      row(concat(name_of(t.verb), " over ", to_text(t.axes), " of ", t.ranks, ", ", name_of(t.element)), bytes_text(t.wire_bytes()),
          concat(t.calls, " calls"));
  row("traffic through this rank", bytes_text(r.traffic->wire_bytes()), "");
  return text;
}

}  // namespace dsx
