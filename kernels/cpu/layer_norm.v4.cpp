// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Layer normalisation for x86-64-v4.
#define DSX_ISA v4
#include "layer_norm_body.hpp"
