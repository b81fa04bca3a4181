// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Normalisation by the root mean square for x86-64-v4.
#define DSX_ISA v4
#include "rms_norm_body.hpp"
