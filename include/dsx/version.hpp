// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The version of dsx, for the preprocessor and for programs; the build reads it from here too.
///
///     #if DSX_VERSION_MAJOR == 0 && DSX_VERSION_MINOR < 2
///     #error "this program needs dsx 0.2"
///     #endif
///     std::puts(dsx::version);   // "0.1.0"
#pragma once

#define DSX_VERSION_MAJOR 0
#define DSX_VERSION_MINOR 1
#define DSX_VERSION_PATCH 0
#define DSX_VERSION "0.1.0"

namespace dsx {

inline constexpr const char* version = DSX_VERSION;

}  // namespace dsx
