// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The loops over packed blocks for x86-64-v4.
#define DSX_ISA v4
#include "block_codec_body.hpp"
