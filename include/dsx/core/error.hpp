// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The one exception of dsx, and fail(), which throws it with the failed equation in its text.
///
///     if (rows % ranks != 0) fail<308>(rows, " rows can't be shared by ", ranks, " ranks");
///     // what(): "dsx-E308: 9 rows can't be shared by 2 ranks"
#pragma once

#include <dsx/core/error_table.hpp>

#include <concepts>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace dsx {

class Error : public std::runtime_error {
 public:
  Error(int number, const std::string& text) : std::runtime_error{"dsx-E" + std::to_string(number) + ": " + text}, number_{number} {}
  /// As in core/error_table.hpp.
  int number() const noexcept { return number_; }

 private:
  int number_;
};

/// Appends a text, number or character, as an error message shows it.
template <class T>
void append(std::string& text, const T& part) {
  if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    text += std::string_view{part};
  } else if constexpr (std::same_as<T, char>) {
    text += part;
  } else if constexpr (std::is_floating_point_v<T>) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.9g", double(part));
    text += digits;
  } else if constexpr (requires { part.string(); }) {  // a file's path
    text += part.string();
  } else {
    text += std::to_string(part);
  }
}

template <class... Parts>
std::string concat(const Parts&... parts) {
  std::string text;
  (append(text, parts), ...);
  return text;
}

/// Throws the numbered Error; the parts are its text.
template <int Number, class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  static_assert(is_known_error(Number), "an error's number must stand in core/error_table.hpp");
  throw Error{Number, concat(parts...)};
}

}  // namespace dsx
