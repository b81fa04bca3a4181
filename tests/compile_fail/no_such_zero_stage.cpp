// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E101
#include <dsx/dsx.hpp>

using namespace dsx;

#ifdef FIXED
inline constexpr Recipe recipe{ZeRO<3>{}};
#else
inline constexpr Recipe recipe{ZeRO<4>{}};
#endif
