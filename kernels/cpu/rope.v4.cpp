// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Rotary positions for x86-64-v4.
#define DSX_ISA v4
#include "rope_body.hpp"
