// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Degrees of parallelism as command lines spell them.
///
///     Degrees d = parse_degrees("data=2,tensor=2,pipe=2,tokens=split");
///     to_text(d);   // the same text
#pragma once

#include <dsx/comm/mesh.hpp>

#include <string_view>

namespace dsx {

/// "axis=number" by commas, of data, inner, tensor, pipe and expert, and tokens=split or tokens=whole; dsx-E312 for anything else.
Degrees parse_degrees(std::string_view text);
/// Axes of more than one rank; "data=1" if there is none.
std::string to_text(const Degrees& degrees);

}  // namespace dsx
