// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A buffer that somebody else owns: rows x columns of one element type at one place.
///
///     View y = x.rows({0, 8});
///     for (float& e : y.as<float>()) e = 0;
#pragma once

#include <dsx/core/element.hpp>
#include <dsx/core/place.hpp>

#include <cstddef>
#include <span>

namespace dsx {

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
  /// For code that runs on the host; dsx-E806 if the buffer lies on a GPU.
  template <class T>
  T* pointer() const {
    if (data && place != Place::cpu) refuse_host();
    return static_cast<T*>(data);
  }
  /// For what hands it on to its place: kernel launchers and copies.
  template <class T>
  T* address() const {
    return static_cast<T*>(data);
  }
  template <class T>
  std::span<T> as() const { return {pointer<T>(), data ? size() : 0}; }
  template <class T>
  T& at(Extent row, Extent column) const { return pointer<T>()[row * shape.columns + column]; }

  /// Some elements of the buffer, as a column of single elements.
  View part(Range r) const { return with(r.begin, {r.size(), 1}); }
  View rows(Range r) const { return with(r.begin * shape.columns, {r.size(), shape.columns}); }
  View reshaped(Shape s) const { return with(0, s); }

 private:
  [[noreturn]] void refuse_host() const {
    fail<806>("code of the host reads or writes ", shape.rows, " x ", shape.columns, " ", name_of(element), " elements that lie on a GPU");
  }
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

/// f(view) for each view that a kernel's argument holds; a type of arguments that holds some brings its own.
void each_view(const View& v, auto f) { f(v); }
void each_view(const Grad& g, auto f) { f(g.view); }

}  // namespace dsx
