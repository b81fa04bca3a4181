// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The main function of every test program; compiled once. A law that is broken fails a check.
#define DOCTEST_CONFIG_IMPLEMENT
#include "laws/law.hpp"

#include <doctest/doctest.h>

int main(int argc, char** argv) {
  laws::on_broken = [](const std::string& text) { FAIL_CHECK(text); };
  return doctest::Context{argc, argv}.run();
}
