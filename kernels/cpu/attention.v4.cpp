// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Attention for x86-64-v4.
#define DSX_ISA v4
#include "attention_body.hpp"
