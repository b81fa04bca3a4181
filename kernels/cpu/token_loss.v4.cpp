// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The token loss for x86-64-v4.
#define DSX_ISA v4
#include "token_loss_body.hpp"
