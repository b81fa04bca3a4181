// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// needs: test_kernels_attention test_kernels_block_codec test_kernels_block_codec_golden test_kernels_elementwise test_kernels_layer_norm
// needs: test_kernels_matmul test_kernels_optimizer test_kernels_permute test_kernels_rms_norm test_kernels_rope
// needs: test_kernels_swiglu test_kernels_token_loss
// timeout: 600
#include <dsx/core/error.hpp>

#include <doctest/doctest.h>

#include <cstdlib>

using namespace dsx;

TEST_CASE("the kernels' tests pass with the lower instruction set too") {
  for (const char* name : {"attention", "block_codec", "block_codec_golden", "elementwise", "layer_norm", "matmul",
                           "optimizer", "permute", "rms_norm", "rope", "swiglu", "token_loss"}) {
    CAPTURE(name);
    CHECK(std::system(concat("DSX_ISA=v3 '", DSX_BINARY_DIR, "/tests/test_kernels_", name, "' > /dev/null").c_str()) == 0);
  }
}
