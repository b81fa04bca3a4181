// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The gated linear unit for x86-64-v4.
#define DSX_ISA v4
#include "swiglu_body.hpp"
