// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// How many OpenMP threads the host kernels of the calling rank use.
///
///     kernels::use_threads(2);
#pragma once

#include <dsx/core/shape.hpp>

namespace dsx::kernels {

/// For kernels that the calling thread starts from now on. Does nothing in a build without OpenMP.
void use_threads(Extent count);
/// Processors that this process may run on.
Extent processors();

}  // namespace dsx::kernels
