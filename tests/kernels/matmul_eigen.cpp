// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Products against Eigen, code that shares nothing with ours: every shape of operands, odd sizes, both touches.
#include <dsx/core/random.hpp>
#include <dsx/kernels/matmul.hpp>

#include <Eigen/Dense>
#include <doctest/doctest.h>

#include <vector>

namespace {

using namespace dsx;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
Rows<T> random_matrix(Extent rows, Extent columns, std::uint64_t seed) {
  Rows<T> x(rows, columns);
  for (Extent i = 0; i < rows * columns; ++i) x.data()[i] = T(uniform({.seed = seed}, i, 0)) - T(0.5F);
  return x;
}
template <class T>
View view(Rows<T>& x) {
  return {x.data(), {Extent(x.rows()), Extent(x.cols())}, element_of<T>};
}

/// Largest distance from Eigen's product, relative to the length of the sums.
template <class T>
double worst(Extent m, Extent n, Extent k) {
  double worst = 0;
  for (const bool a_turned : {false, true})
    for (const bool b_turned : {false, true})
      for (const bool accumulate : {false, true}) {
        Rows<T> a = random_matrix<T>(a_turned ? k : m, a_turned ? m : k, 1), b = random_matrix<T>(b_turned ? n : k, b_turned ? k : n, 2);
        Rows<T> c = random_matrix<T>(m, n, 3);
        Rows<T> expected = accumulate ? c : Rows<T>(Rows<T>::Zero(Eigen::Index(m), Eigen::Index(n)));
        const Rows<T> left = a_turned ? Rows<T>(a.transpose()) : a, right = b_turned ? Rows<T>(b.transpose()) : b;
        expected += left * right;
        kernels::matmul({view(a), a_turned}, {view(b), b_turned}, {view(c), accumulate});
        if (m > 0 && n > 0) worst = std::max(worst, double((c - expected).cwiseAbs().maxCoeff()) / double(k + 1));
      }
  return worst;
}

}  // namespace

TEST_CASE("matrix products equal Eigen's in every form of their operands") {
  for (const Extent m : {1, 3, 17, 64, 130})
    for (const Extent n : {1, 5, 16, 63, 200})
      for (const Extent k : {1, 7, 48, 129}) {
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        CHECK(worst<double>(m, n, k) < 1e-15);
        CHECK(worst<float>(m, n, k) < 1e-7);
      }
}
