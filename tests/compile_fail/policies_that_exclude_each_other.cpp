// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E107
#include <dsx/dsx.hpp>

using namespace dsx;

/// A user's own: gradients leave as soon as they are there, so no schedule may keep several micro-batches under way.
struct EagerSharding : ZeRO<1> {
  static constexpr Exclusion excludes[]{excluding<OneForwardOneBackward>("several micro-batches are under way")};
};

#ifdef FIXED
inline constexpr Recipe recipe{EagerSharding{}, SingleStage{}};
#else
inline constexpr Recipe recipe{OneForwardOneBackward{}, EagerSharding{}};
#endif
