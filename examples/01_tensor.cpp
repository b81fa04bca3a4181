// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A tensor owns elements, a view borrows them, and kernels take views.
// run:
// expect: 22 28\n49 64
// expect: in bfloat16 1.0078125
// expect: dsx-E301: kernels::matmul
#include <dsx/kernels/matmul.hpp>
#include <dsx/tensor/tensor.hpp>

#include <cstdio>

int main() {
  dsx::Tensor<float> a{{2, 3}, {1, 2, 3, 4, 5, 6}}, b{{3, 2}, {1, 2, 3, 4, 5, 6}}, c{{2, 2}};
  dsx::kernels::matmul({a.view()}, {b.view()}, {c.view(), false});  // false: overwrite, true: add to what is there
  std::printf("%g %g\n%g %g\n", c(0, 0), c(0, 1), c(1, 0), c(1, 1));

  const dsx::View second_row = a.view().rows({1, 2});  // no copy
  second_row.at<float>(0, 0) = 40;
  std::printf("a(1, 0) = %g\n", a(1, 0));

  dsx::Tensor<float> exact{{1, 1}, {1.005F}};
  dsx::Tensor<dsx::bf16> narrow{{1, 1}};  // the element type is a run-time tag of the view
  dsx::kernels::copy(exact.view(), narrow.view());
  std::printf("%.9g in bfloat16 %.9g\n", double(exact(0, 0)), double(narrow(0, 0)));

  try {
    dsx::kernels::matmul({a.view()}, {a.view()}, {c.view(), false});
  } catch (const dsx::Error& e) {
    std::printf("%s\n", e.what());  // the numbers that don't fit
  }
}
