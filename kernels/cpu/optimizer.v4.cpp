// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The optimizers' loops for x86-64-v4.
#define DSX_ISA v4
#include "optimizer_body.hpp"
