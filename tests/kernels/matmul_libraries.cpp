// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Each library that may multiply matrices passes what tests one product, trains like the golden run, plans what it uses and allocates no
/// more than it is known to.
// needs: test_kernels_matmul test_models_gpt2_golden test_equivalence_memory test_equivalence_allocations
// timeout: 900
#include <dsx/core/error.hpp>
#include <dsx/kernels/matmul.hpp>

#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

using namespace dsx;

TEST_CASE("a library that DSX_MATMUL names is used, one that this build lacks is refused with those it has") {
  ::setenv("DSX_MATMUL", "abacus", 1);
  try {
    kernels::matmul_library(Element::f32);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.number() == 810);
    CHECK(std::string(error.what()).find("abacus") != std::string::npos);
    for (const kernels::MatmulLibrary library : kernels::matmul_libraries())
      CHECK(std::string(error.what()).find(name_of(library)) != std::string::npos);
  }
  const kernels::MatmulLibrary last = kernels::matmul_libraries().back();
  ::setenv("DSX_MATMUL", std::string(name_of(last)).c_str(), 1);
  CHECK(kernels::matmul_library(Element::f32) == last);
  CHECK(kernels::matmul_library(Element::bf16) == last);
  CHECK(kernels::matmul_library(Element::f64) == kernels::MatmulLibrary::eigen);
}

TEST_CASE("tests of products, gradients, training, plans and allocations pass with each library") {
  for (const kernels::MatmulLibrary library : kernels::matmul_libraries())
    for (const char* test : {"kernels_matmul", "models_gpt2_golden", "equivalence_memory", "equivalence_allocations"}) {
      CAPTURE(name_of(library));
      CAPTURE(test);
      CHECK(std::system(concat("DSX_MATMUL=", name_of(library), " '", DSX_BINARY_DIR, "/tests/test_", test, "' > /dev/null").c_str()) == 0);
    }
}
