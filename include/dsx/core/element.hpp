// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Element types as run-time tags, bfloat16, and the dispatch from a tag to a type.
///
///     dispatch(view.element, [&](auto zero) { using T = decltype(zero); fill(view.as<T>()); });
#pragma once

#include <dsx/core/error.hpp>
#include <dsx/core/shape.hpp>

#include <bit>
#include <cstdint>
#include <string_view>

namespace dsx {

/// What a buffer holds. Kernels compute with f32, f64 and bf16; the others occur in files and indices.
enum class Element : std::uint8_t { f32, f64, bf16, f16, i8, u8, i16, u16, i32, u32, i64, u64, boolean };

constexpr Extent bytes_of(Element e) {
  switch (e) {
    case Element::i8: case Element::u8: case Element::boolean: return 1;
    case Element::bf16: case Element::f16: case Element::i16: case Element::u16: return 2;
    case Element::f32: case Element::i32: case Element::u32: return 4;
    case Element::f64: case Element::i64: case Element::u64: return 8;
  }
  return 0;
}

constexpr std::string_view name_of(Element e) {
  constexpr std::string_view names[] = {"f32", "f64", "bf16", "f16", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "boolean"};
  return names[std::size_t(e)];
}

/// The upper half of a float. Rounds to nearest even; a NaN stays one.
struct bf16 {
  std::uint16_t bits = 0;

  constexpr bf16() = default;
  constexpr explicit bf16(float x) {
    const auto b = std::bit_cast<std::uint32_t>(x);
    const bool nan = (b & 0x7FFFFFFFU) > 0x7F800000U;
    bits = nan ? std::uint16_t((b >> 16) | 0x40U) : std::uint16_t((b + 0x7FFFU + ((b >> 16) & 1U)) >> 16);
  }
  constexpr explicit bf16(double x) : bf16{float(x)} {}
  constexpr operator float() const { return std::bit_cast<float>(std::uint32_t(bits) << 16); }
};

template <class T> inline constexpr Element element_of = Element::f32;
template <> inline constexpr Element element_of<double> = Element::f64;
template <> inline constexpr Element element_of<bf16> = Element::bf16;
template <> inline constexpr Element element_of<std::int32_t> = Element::i32;
template <> inline constexpr Element element_of<std::int64_t> = Element::i64;
template <> inline constexpr Element element_of<std::uint8_t> = Element::u8;

/// What sums and statistics over elements are kept in: f64 for f64, else f32.
constexpr Element wide(Element e) { return e == Element::f64 ? Element::f64 : Element::f32; }
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// Calls f(T{}) with the type that a kernel computes with; dsx-E405 for every other element.
template <class F>
decltype(auto) dispatch(Element e, F&& f) {
  switch (e) {
    case Element::f32: return f(float{});
    case Element::f64: return f(double{});
    case Element::bf16: return f(bf16{});
    default: fail<405>("no kernel computes with ", name_of(e), " elements; f32, f64 and bf16 are known");
  }
}

}  // namespace dsx
