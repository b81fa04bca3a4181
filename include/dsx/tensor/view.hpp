// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A buffer that somebody else owns: rows x columns of one element type at one place.
///
///     View y = x.rows({0, 8});
///     for (float& e : y.as<float>()) e = 0;
#pragma once

#include <dsx/core/element.hpp>

#include <cstddef>
#include <span>

namespace dsx {

/// Where kernels run.
enum class Place : std::uint8_t { cpu, cuda };
/// Where a bundle rests, each tier with its own budget.
enum class Tier : std::uint8_t { device, host, disk };

struct Codec;  // how low-bit numbers are packed

/// In a dry run `data` is null and everything else is true. Rows are contiguous.
struct View {
  void* data = nullptr;
  Shape shape{};
  Element element = Element::f32;
  Place place = Place::cpu;
  const Codec* codec = nullptr;

  Extent size() const { return shape.size(); }
  Extent bytes() const { return size() * bytes_of(element); }
  template <class T>
  T* pointer() const { return static_cast<T*>(data); }
  template <class T>
  std::span<T> as() const { return {pointer<T>(), data ? size() : 0}; }
  template <class T>
  T& at(Extent row, Extent column) const { return pointer<T>()[row * shape.columns + column]; }

  /// Some elements of the buffer, as a column of single elements.
  View part(Range r) const { return with(r.begin, {r.size(), 1}); }
  View rows(Range r) const { return with(r.begin * shape.columns, {r.size(), shape.columns}); }
  View reshaped(Shape s) const { return with(0, s); }

 private:
  View with(Extent offset, Shape s) const {
    View v = *this;
    v.shape = s;
    if (data) v.data = static_cast<std::byte*>(data) + offset * bytes_of(element);
    return v;
  }
};

/// First touch overwrites, so nothing is zeroed beforehand. Every backward kernel takes the flag.
struct Grad {
  View view{};
  bool accumulate = false;
};

}  // namespace dsx
