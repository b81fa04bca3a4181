// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The laws of an offload policy: it answers the same whenever it is asked, where something rests never changes the bits that come back,
/// and what doesn't rest on the device takes none of its bytes but while it is used.
///
///     laws::offload(Resident{});
#pragma once

#include "identity_laws.hpp"

namespace laws {

template <OffloadPolicy P>
void offload(const P& policy) {
  for (const Kind kind : {Kind::weights, Kind::gradients, Kind::state, Kind::activations})
    for (const Role role : {Role::vector, Role::matrix, Role::table}) {
      const ParameterInfo info{.path = "a.b", .whole = {4, 4}, .summed_over = Axes::data, .role = role};
      const Tier tier = policy.rests(kind, info);
      LAW(policy.rests(kind, info) == tier, "another tier the second time");
      LAW(AnyOffload{policy}.rests(kind, info) == tier, "AnyOffload answers otherwise");
    }
  for (const AnySharding& sharding : {AnySharding{}, AnySharding{ZeRO<2>{}}}) {
    const Degrees degrees{.data = 2};
    const AnyRecipe resident{sharding, AnyPrecision{Bf16{}}}, offloaded{sharding, AnyOffload{policy}, AnyPrecision{Bf16{}}};
    LAW(bits_of(offloaded, degrees) == bits_of(resident, degrees), "other bits than where everything rests on the device");
    const auto bytes_on = [&](const AnyRecipe& recipe, Tier tier) {
      Session plan = Session::dry(0, 2);
      const Mesh mesh{plan, degrees};
      Weights weights{mesh, make_model(), recipe};
      const Trainer trainer{weights, AdamW{}, TokenLoss{.chunk = 10}, {.rows = length}};
      std::array<Extent, 3> bytes{};
      for (Extent i = 0; const Category c : {Category::weights, Category::gradients, Category::state}) bytes[i++] = plan.memory.tally(c, tier).peak;
      return bytes;
    };
    const auto before = bytes_on(resident, Tier::device), on_device = bytes_on(offloaded, Tier::device), on_host = bytes_on(offloaded, Tier::host),
               on_disk = bytes_on(offloaded, Tier::disk);
    for (Extent i = 0; i < before.size(); ++i)
      LAW(on_device[i] + on_host[i] + on_disk[i] == before[i], "memory that rests nowhere, or in two tiers: of ", before[i], " bytes ", on_device[i],
          " on the device, ", on_host[i], " on the host and ", on_disk[i], " on the disk");
  }
}

}  // namespace laws
