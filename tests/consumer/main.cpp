// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// A user's program: everything from headers, one call into dsx::kernels.
#include <dsx/dsx.hpp>
#include <dsx/io/json.hpp>

#include <cstdio>

int main() { std::puts(dsx::Json::object({{"dsx", dsx::version}}).dump().c_str()); }
