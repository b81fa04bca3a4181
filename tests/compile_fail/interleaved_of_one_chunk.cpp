// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E116
#include <dsx/dsx.hpp>

using namespace dsx;

#ifdef FIXED
inline constexpr Recipe recipe{Interleaved<2>{}};
#else
inline constexpr Recipe recipe{Interleaved<1>{}};
#endif
