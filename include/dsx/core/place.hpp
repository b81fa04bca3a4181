// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Where kernels run and where memory lies, as run-time tags.
///
///     Session session{self_transport(), Place::cuda};
///     View w = session.memory.keep(Category::weights, {n, 1}, Element::f32);   // w.place == Place::cuda
#pragma once

#include <cstdint>
#include <string_view>

namespace dsx {

/// Where kernels run.
enum class Place : std::uint8_t { cpu, cuda };
constexpr std::string_view name_of(Place p) { return p == Place::cpu ? "cpu" : "cuda"; }

/// Where a bundle rests, each tier with its own budget.
enum class Tier : std::uint8_t { device, host, disk };

}  // namespace dsx
