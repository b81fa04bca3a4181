// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// error: dsx-E107
// most_lines: 8
#include <dsx/dsx.hpp>

using namespace dsx;

/// A user's own: gradients leave as soon as they are there, so no schedule may keep several micro-batches under way.
struct EagerSharding : ZeRO<1> {
  template <class Other>
  static constexpr bool excludes = std::same_as<Other, OneForwardOneBackward>;
};

#ifdef FIXED
inline constexpr Recipe recipe{EagerSharding{}, SingleStage{}};
#else
inline constexpr Recipe recipe{OneForwardOneBackward{}, EagerSharding{}};
#endif
