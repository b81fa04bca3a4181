// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The elementwise loops for x86-64-v4.
#define DSX_ISA v4
#include "elementwise_body.hpp"
