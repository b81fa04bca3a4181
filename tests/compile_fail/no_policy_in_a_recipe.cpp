// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E106
#include <dsx/dsx.hpp>

using namespace dsx;

#ifdef FIXED
inline constexpr Recipe recipe{ZeRO<2>{}, Bf16{}};
#else
inline constexpr Recipe recipe{ZeRO<2>{}, AdamW{}};
#endif
