// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// How a law is written, so that a test can show both: a policy keeps it, and it catches one that doesn't. Programs that link dsx::laws
/// include these headers as <laws/...>.
///
///     template <Summation S> void summation(const S& p) { LAW(p.fixed_grains() == p.fixed_grains(), "another answer the second time"); }
///     laws::summation(Fast{});                                                      // throws, or what on_broken does
///     CHECK(laws::broken([] { laws::summation(Fickle{}); }) == "another answer the second time");
#pragma once

#include <dsx/core/error.hpp>

#include <stdexcept>
#include <string>

namespace laws {

/// What broken() collects: the first law that did not hold. Null: on_broken is told.
inline thread_local std::string* first_broken = nullptr;
/// Where a test framework's own check may stand.
inline void (*on_broken)(const std::string& text) = [](const std::string& text) { throw std::logic_error{text}; };

/// The text of the first law that a policy breaks, or of the dsx::Error that refuses it; empty if it keeps all.
template <class F>
std::string broken(F judge) {
  std::string first;
  first_broken = &first;
  try {
    judge();
  } catch (const dsx::Error& e) {
    if (first.empty()) first = e.what();
  }
  first_broken = nullptr;
  return first;
}

}  // namespace laws

/// A law, and what to say when a policy breaks it: parts of a text with the values.
#define LAW(kept, ...)                                                           \
  do {                                                                           \
    if (kept) break;                                                             \
    if (!laws::first_broken)                                                     \
      laws::on_broken(dsx::concat(__VA_ARGS__));                                 \
    else if (laws::first_broken->empty())                                        \
      *laws::first_broken = dsx::concat(__VA_ARGS__);                            \
  } while (false)
