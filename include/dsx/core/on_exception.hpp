// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Runs a function if its scope is left by an exception.
///
///     const OnException undo{[&] { release(); }};
#pragma once

#include <exception>
#include <utility>

namespace dsx {

template <class F>
class [[nodiscard]] OnException {
 public:
  explicit OnException(F f) : f_{std::move(f)}, before_{std::uncaught_exceptions()} {}
  OnException(const OnException&) = delete;
  OnException& operator=(const OnException&) = delete;
  ~OnException() {
    if (std::uncaught_exceptions() > before_) f_();
  }

 private:
  F f_;
  int before_;
};

}  // namespace dsx
