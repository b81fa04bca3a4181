// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// A user's test: his policy against the laws of its slot, with the headers that dsx's own tests include.
#include <laws/schedule_laws.hpp>
#include <laws/sharding_laws.hpp>

#include <cstdio>

int main() {
  const std::string broken = laws::broken([] { laws::schedule(dsx::GPipe{}, 3); });
  std::puts(broken.empty() ? "kept" : broken.c_str());
}
