// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The sum of one tensor as signs (Tang et al. 2021, arXiv 2102.02888), all ranks in one loop, in double, written from the paper.
///
///     SignSum sum{n, ranks};
///     std::vector<double> now = sum(terms_of_ranks);    // what every rank gets; sum.owed, sum.owed_of_part
#pragma once

#include <dsx/core/shape.hpp>

#include <cmath>
#include <vector>

namespace dsx::test {

struct SignSum {
  Extent n, ranks;
  std::vector<std::vector<double>> owed;  // by rank
  std::vector<double> owed_of_part;       // by element: each is of one rank's part

  SignSum(Extent size, Extent of_ranks) : n{size}, ranks{of_ranks}, owed(of_ranks, std::vector<double>(size)), owed_of_part(size) {}

  Range part(Extent r) const {
    const Extent each = (n + ranks - 1) / ranks;
    return {std::min(n, r * each), std::min(n, (r + 1) * each)};
  }
  std::vector<double> operator()(const std::vector<std::vector<double>>& terms) {
    std::vector<double> sum(n), result(n);
    for (Extent r = 0; r < ranks; ++r) {
      std::vector<double> x(n);
      for (Extent i = 0; i < n; ++i) x[i] = terms[r][i] + owed[r][i];
      const auto sent = signs(x, {0, n});
      for (Extent i = 0; i < n; ++i) sum[i] += sent[i], owed[r][i] = x[i] - sent[i];
    }
    for (Extent r = 0; r < ranks; ++r) {
      const Range p = part(r);
      for (Extent i = p.begin; i < p.end; ++i) sum[i] += owed_of_part[i];
      const auto sent = signs(sum, p);
      for (Extent i = p.begin; i < p.end; ++i) result[i] = sent[i], owed_of_part[i] = sum[i] - sent[i];
    }
    return result;
  }

 private:
  /// ||x|| / sqrt(n) times the sign, of zero too +; the scale travels as a float.
  static std::vector<double> signs(const std::vector<double>& x, Range here) {
    double squares = 0;
    for (Extent i = here.begin; i < here.end; ++i) squares += x[i] * x[i];
    const double scale = here.size() ? double(float(std::sqrt(squares / double(here.size())))) : 0;
    std::vector<double> all(x.size());
    for (Extent i = here.begin; i < here.end; ++i) all[i] = x[i] >= 0 ? scale : -scale;
    return all;
  }
};

}  // namespace dsx::test
