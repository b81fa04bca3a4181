// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Permute and combine for x86-64-v4.
#define DSX_ISA v4
#include "permute_body.hpp"
