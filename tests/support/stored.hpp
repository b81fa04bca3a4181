// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Stored answers: reading them, and the distance between two tensors.
///
///     const SafetensorsFile expected{golden("gpt2_tiny/expected.safetensors")};
///     CHECK(relative(logits, numbers(expected, "logits")) < 1e-5);
#pragma once

#include <dsx/io/safetensors.hpp>

#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace dsx::test {

inline std::string golden(const std::string& file) { return std::string{DSX_GOLDEN} + "/" + file; }

/// A tensor of floats, whatever its dims.
inline std::vector<double> numbers(const SafetensorsFile& file, const std::string& name) {
  std::vector<double> all(file.entry(name).size());
  file.copy_elements(name, {0, all.size()}, {all.data(), {all.size(), 1}, Element::f64});
  return all;
}
/// A tensor of whole numbers.
inline std::vector<int> integers(const SafetensorsFile& file, const std::string& name) {
  std::vector<std::int64_t> all(file.entry(name).size());
  file.copy_elements(name, {0, all.size()}, {all.data(), {all.size(), 1}, Element::i64});
  return {all.begin(), all.end()};
}
/// Part `index` of a tensor whose first dim has `parts` entries.
template <class T>
std::span<const T> part_of(const std::vector<T>& all, Extent parts, Extent index) {
  return std::span{all}.subspan(index * (all.size() / parts), all.size() / parts);
}

/// max|a - b| / max(max|b|, floor); infinite where the sizes differ or anything isn't finite.
template <class A, class B>
double relative(const A& a, const B& b, double floor = 0) {
  double most = 0, largest = floor;
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  for (Extent i = 0; i < a.size(); ++i) {
    const double difference = std::abs(double(a[i]) - double(b[i]));
    if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
    most = std::max(most, difference), largest = std::max(largest, std::abs(double(b[i])));
  }
  return most == 0 ? 0 : most / largest;
}
inline double relative(double a, double b) { return relative(std::vector{a}, std::vector{b}); }

/// A Hugging Face label belongs to its own position; our target of a row is the label of the next.
inline std::vector<int> shifted(std::span<const int> labels) {
  std::vector<int> targets(labels.begin() + 1, labels.end());
  targets.push_back(-1);
  return targets;
}

}  // namespace dsx::test
